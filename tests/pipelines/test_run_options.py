import pytest

from pipelines import cli
from pipelines.run_options import add_run_options, run_overrides
from stage2_training.config.overrides import Overrides


@pytest.fixture
def parser():
    parser = cli.Parser()
    add_run_options(parser, schedule="pretrain", work_dir="work_dirs/x")
    return parser


def test_nothing_given_changes_nothing_but_the_seed(parser):
    assert run_overrides(parser.parse_args([])) == Overrides(seed=0)


def test_everything_given_arrives(parser):
    numbers = "--epochs 3 --total-batch 6 --batch-size 2 --workers 0 --seed 7"
    switches = "--auto-scale-lr --amp --ema --cfg-options a.b=1 c=2"
    assert run_overrides(parser.parse_args(f"{numbers} {switches}".split())) == Overrides(
        epochs=3,
        total_batch=6,
        batch_size=2,
        workers=0,
        seed=7,
        auto_scale_lr=True,
        amp=True,
        ema=True,
        cfg_options=["a.b=1", "c=2"],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        *("--epochs 0", "--batch-size 0", "--total-batch 0", "--gpus 0"),
        *("--workers -1", "--seed x", "--epochs 1.5"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(parser, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments.split())
    option, text = arguments.split()
    assert capsys.readouterr().err.startswith(f"error: argument {option}: {text!r} is no integer from ")
