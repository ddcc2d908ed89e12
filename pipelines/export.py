"""Write a fine-tuned detector as an ONNX graph, a TorchScript program, or its weights alone."""

from pathlib import Path

import click

from pipelines import options
from stage1_proposals.common.files import check_writable
from stage1_proposals.common.system import choose_device
from stage2_training import quiet_imports
from stage2_training.runs.init_options import check_run

FORMATS = {"onnx": "detector.onnx", "torchscript": "detector.ts", "weights": "weights.pth"}


@click.command(cls=options.Command)
@click.option("--work-dir", required=True, type=options.PATH, help="Work directory of a fine-tuning run.")
@click.option("--format", type=click.Choice(list(FORMATS)), default="onnx", help="What to write.")
@click.option("--last", is_flag=True, help="The last checkpoint in place of that of the best validation AP.")
@click.option("--out", type=options.PATH, help="The file. Default: detector.onnx, detector.ts or weights.pth there.")
def command(work_dir: Path, format: str, last: bool, out: Path | None) -> None:
    """Write a fine-tuned detector as an ONNX graph, a TorchScript program, or its weights alone.

    docs/export.md has what the files take and return, and a program that runs one without PyTorch.
    """
    check_run(work_dir)
    path = out or work_dir / FORMATS[format]
    check_writable(path)
    choose_device("cpu")
    with quiet_imports():
        from stage2_training.inference.export_files import export_file
        from stage2_training.inference.predictor import load_detector
        from stage2_training.runs.work_dir import WorkDir

    work = WorkDir(work_dir)
    config, checkpoint = work.read_config(), work.require_checkpoint(last)
    export_file(load_detector(config, checkpoint, device="cpu"), config, path, format)
    print(f"{checkpoint}\nwritten to {path} ({path.stat().st_size / 1e6:.1f} MB)")
