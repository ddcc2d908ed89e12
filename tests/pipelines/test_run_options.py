import pytest

from pipelines import cli
from pipelines.run_options import add_run_options
from stage2_training.options import Overrides


@pytest.fixture
def parser():
    parser = cli.Parser()
    add_run_options(parser, schedule="pretrain", work_dir="work_dirs/x")
    return parser


def test_nothing_given_changes_nothing_but_the_seed(parser):
    assert Overrides.from_args(parser.parse_args([])) == Overrides(seed=0)


def test_everything_given_arrives(parser):
    arguments = "--epochs 3 --batch-size 2 --workers 0 --seed 7 --auto-scale-lr --cfg-options a.b=1 c=2"
    assert Overrides.from_args(parser.parse_args(arguments.split())) == Overrides(
        epochs=3, batch_size=2, workers=0, seed=7, auto_scale_lr=True, cfg_options=["a.b=1", "c=2"]
    )


@pytest.mark.parametrize("arguments", ["--epochs 0", "--batch-size 0", "--workers -1", "--seed x", "--epochs 1.5"])
def test_numbers_out_of_range_are_usage_errors(parser, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments.split())
    option, text = arguments.split()
    assert capsys.readouterr().err.startswith(f"error: argument {option}: {text!r} is no integer from ")
