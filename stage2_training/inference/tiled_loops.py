"""Evaluation of runs that see their images in tiles."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.registry import LOOPS
from mmengine.runner import Runner, TestLoop, ValLoop
from mmengine.structures import InstanceData

from stage1_proposals.images.decode import read_image
from stage2_training.inference.predictor import find_objects
from stage2_training.inference.tiles import Tiles, predict_in_tiles


class _InTiles:
    """A loop that finds the objects of each image as `Predictor` does with tiles.

    The data loader's images are not used: they have been resized as a whole.

    Args:
        runner, dataloader, evaluator, kwargs: as of MMEngine's loops.
        side: of the tiles, in pixels of the image.
    """

    stage: str  # in the names of hooks
    runner: Runner
    dataloader: Any
    evaluator: Evaluator

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any, side: int, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, evaluator, **kwargs)  # type: ignore[call-arg]  # a loop's
        self.side = side

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Mapping[str, Any]) -> None:
        """Find the objects of a batch's images."""
        self.runner.call_hook(f"before_{self.stage}_iter", batch_idx=idx, data_batch=data_batch)
        found = [self._see(sample) for sample in data_batch["data_samples"]]
        self.evaluator.process(data_samples=found, data_batch=data_batch)
        self.runner.call_hook(f"after_{self.stage}_iter", batch_idx=idx, data_batch=data_batch, outputs=found)

    def _see(self, sample: DetDataSample) -> DetDataSample:
        see = partial(find_objects, self.runner.model, self.dataloader.dataset.pipeline.transforms, None)
        found = predict_in_tiles(see, read_image(sample.img_path), Tiles(self.side))
        instances = InstanceData(
            bboxes=torch.from_numpy(found.boxes),
            scores=torch.from_numpy(found.scores),
            labels=torch.from_numpy(found.labels),
            masks=list(found.rle),
        )
        return DetDataSample(metainfo=sample.metainfo, pred_instances=instances)


@LOOPS.register_module()
class TiledValLoop(_InTiles, ValLoop):
    """MMEngine's `ValLoop` in tiles."""

    stage = "val"


@LOOPS.register_module()
class TiledTestLoop(_InTiles, TestLoop):
    """MMEngine's `TestLoop` in tiles."""

    stage = "test"
