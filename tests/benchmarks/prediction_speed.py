"""Predicting images with a fine-tuned run: beside its network alone, in PyTorch and in ONNX Runtime."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import onnxruntime
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor

from pipelines.options import PATH, POSITIVE, Command
from pipelines.prediction_job import Block, BlockBuilder, PredictionJob, PredictionRequest
from stage2_training.config.annotation_files import check_annotations
from stage2_training.config.pieces import finds_one_piece
from stage2_training.inference.export_files import export_file
from stage2_training.inference.export_networks import export_network
from stage2_training.inference.predictor import image_loader, load_detector, preprocess
from stage2_training.models.one_piece import largest_pieces
from stage2_training.runs.init_options import check_run
from stage2_training.runs.work_dir import WorkDir
from tests.benchmarks.measuring import print_machine, print_values
from tests.benchmarks.training_speed import measure_in_turn, ratio


@click.command(cls=Command)
@click.option("--work-dir", required=True, type=PATH, help="Of a fine-tuning run.")
@click.option("--count", type=POSITIVE, default=30, help="Of its test images.")
@click.option("--repeat", type=POSITIVE, default=3, help="Rounds; medians count.")
def command(work_dir: Path, count: int, repeat: int) -> None:
    """Predicting images with a fine-tuned run: beside its network alone, in PyTorch and in ONNX Runtime."""
    check_run(work_dir)
    print_machine("cpu")
    print_values(compare_prediction(work_dir, count, repeat))


@torch.no_grad()
def compare_prediction(work_dir: Path, count: int, rounds: int) -> dict[str, str]:
    """Time of `predict`, of the exported network in PyTorch and in ONNX Runtime, and how well those two agree."""
    work = WorkDir(work_dir)
    config, checkpoint = work.read_config(), work.require_checkpoint(last=False)
    check_annotations(config, ["test"])
    model = load_detector(config, checkpoint, device="cpu")
    network = export_network(model)
    images = [preprocess(model, data) for data in image_loader(config, count)]
    paths = [str(Path(sample.img_path).resolve()) for _, (sample,) in images]
    given = [(inputs, torch.tensor([sample.img_shape])) for inputs, (sample,) in images]
    longest = max(max(sample.img_shape) for _, (sample,) in images)
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as folder:
        run = onnx_runtime(model, config, Path(folder) / "detector.onnx")
        seconds = measure_in_turn(
            {
                "predict": prediction(work_dir, checkpoint, paths, Path(folder)),
                "network": lambda: [network(*image) for image in given],
                "onnx": lambda: [run(*image) for image in given],
            },
            "cpu",
            rounds,
        )
        each = {name: f"{statistics.median(times) / len(given):.3f} s" for name, times in seconds.items()}
        return {
            "setting": f"{type(model).__name__}, {len(given)} images, one at a time, up to {longest} pixels",
            "an image, predict, from its file to its objects in a file": each["predict"],
            "the network alone, in PyTorch": each["network"],
            "the network alone, in ONNX Runtime": each["onnx"],
            "images per second, predict / the network alone": f"{ratio(seconds['network'], seconds['predict']):.2f}",
            "PyTorch / ONNX Runtime": f"{ratio(seconds['network'], seconds['onnx']):.2f}",
            **agreement(model, given, run, finds_one_piece(config.model)),
        }


def prediction(work_dir: Path, checkpoint: Path, paths: Sequence[str], out: Path) -> Callable[[], None]:
    """A function that does what a worker of `predict` does with a block of images."""
    request = PredictionRequest("/", len(paths), "", len(paths), "", "", score=0.3, tile=0)
    job = PredictionJob(request, work_dir, checkpoint, out, "cpu")
    builder, block = BlockBuilder(job), Block(0, tuple(paths), tuple(range(len(paths))))
    job.folder.mkdir()

    def predict() -> None:
        job.file(0).unlink(missing_ok=True)
        builder.compute(block, lambda done: None)()

    return predict


def onnx_runtime(model: BaseDetector, config: Config, path: Path) -> Callable[..., list[Tensor]]:
    """The exported detector, as a function of images and sizes that gives scores, labels and masks."""
    export_file(model, config, path, "onnx")
    session = onnxruntime.InferenceSession(path)
    names = {each.name for each in session.get_inputs()}

    def run(images: Tensor, sizes: Tensor) -> list[Tensor]:
        given = {"images": images.numpy(), "sizes": sizes.numpy()}
        return [torch.from_numpy(found) for found in session.run(None, {name: given[name] for name in names})]

    return run


def agreement(
    model: BaseDetector, given: Sequence[tuple[Tensor, Tensor]], run: Callable, one_piece: bool
) -> dict[str, str]:
    """How well the objects of the ONNX file agree with those of MMDetection's prediction, in the network's pixels.

    Scores are compared in their order. Masks are compared with the most similar one, for rounding may exchange objects
    of equal scores, and decides which of two boxes is suppressed. With `one_piece`, the file's masks keep their largest
    part, as the model's do.
    """
    differences, overlaps = [], []
    for images, sizes in given:
        height, width = shape = tuple(sizes[0].tolist())
        sample = DetDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)})
        sample.set_metainfo({"batch_input_shape": images.shape[-2:]})
        wanted = model.predict(images, [sample], rescale=False)[0].pred_instances
        scores, _, masks = (each[0] for each in run(images, sizes))
        ours, theirs = (values.sort(descending=True).values for values in (scores, wanted.scores))
        shared = min(len(ours), len(theirs))
        differences.append((ours[:shared] - theirs[:shared]).abs())
        truth = wanted.masks[wanted.masks.flatten(1).any(1)].flatten(1).float()
        masks = masks[:, :height, :width] > 0.5
        found = (largest_pieces(masks) if one_piece else masks).flatten(1).float()
        both = truth @ found.T
        union = truth.sum(1)[:, None] + found.sum(1) - both
        overlaps.append((both / union).amax(1))
    difference, overlap = torch.cat(differences), torch.cat(overlaps)
    return {
        "scores, ONNX Runtime against PyTorch": f"within {difference.max():.0e}; "
        f"{100 * (difference < 1e-3).float().mean():.1f} % within 1e-3, of {len(difference)}",
        f"masks, of {len(overlap)} objects that have one": f"mean IoU {overlap.mean():.5f}",
    }
