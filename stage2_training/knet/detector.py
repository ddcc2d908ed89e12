"""K-Net for instance segmentation, as an MMDetection 3 detector."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig
from torch import Tensor

from stage2_training.knet.assignment import Assignment, CostWeights, instance_targets
from stage2_training.knet.heads import KernelHeadOutput, StageOutput
from stage2_training.knet.losses import LossWeights, PointSampling, knet_losses
from stage2_training.knet.postprocess import predict_instances


class TrainingPass(NamedTuple):
    """A training pass: its losses, and what a further loss on the kernels needs."""

    losses: dict[str, Tensor]
    stages: list[StageOutput]
    assignments: list[Assignment]  # of each stage


@MODELS.register_module()
class KNet(BaseDetector):
    """K-Net (Zhang et al., NeurIPS 2021), for any batch size, also of images without instances.

    Use bfloat16 for mixed precision: sums over a mask's pixels can exceed the range of float16.

    Args:
        backbone, neck: features at strides 4, 8, 16, 32, all with the heads' number of channels.
        rpn_head: `KernelHead`.
        roi_head: `KernelIterHead`.
        train_cfg: `cost_weights` and `loss_weights`, fields of `CostWeights` and `LossWeights`; `mask_points` and
            `cost_points`, see `PointSampling`.
        test_cfg: `max_per_img`, `mask_threshold`, `min_score`, `rescore` and `one_piece`, see `predict_instances`.
        data_preprocessor: pads images to a multiple of 32 and masks with them.
        init_cfg: as in MMEngine.
    """

    def __init__(
        self,
        backbone: ConfigType,
        neck: ConfigType,
        rpn_head: ConfigType,
        roi_head: ConfigType,
        train_cfg: OptConfigType = None,
        test_cfg: OptConfigType = None,
        data_preprocessor: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.rpn_head = MODELS.build(rpn_head)
        self.roi_head = MODELS.build(roi_head)
        train_cfg = train_cfg or {}
        self.cost_weights = CostWeights(**train_cfg.get("cost_weights", {}))
        self.loss_weights = LossWeights(**train_cfg.get("loss_weights", {}))
        self.points = PointSampling(train_cfg.get("mask_points"), train_cfg.get("cost_points"))
        self.test_cfg = dict(test_cfg or {})

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), H and W multiples of 32 -> FPN levels at strides 4, 8, 16, 32."""
        return self.neck(self.backbone(batch_inputs))

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """The losses by name, see `knet_losses`."""
        return self.training_pass(batch_inputs, batch_data_samples).losses

    def training_pass(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Sequence[DetDataSample],
        kernel_head: Callable[[Sequence[Tensor]], KernelHeadOutput] | None = None,
    ) -> TrainingPass:
        """The losses, and what a further loss on the kernels needs.

        Args:
            batch_inputs: images (B, 3, H, W).
            batch_data_samples: whose `gt_instances` have masks and labels.
            kernel_head: from the FPN levels to what the update stages start from; by default `rpn_head`.
        """
        initial: KernelHeadOutput = (kernel_head or self.rpn_head)(self.extract_feat(batch_inputs))
        stages = self.roi_head(initial.features, initial.kernels, initial.mask_logits)
        height, width = initial.mask_logits.shape[-2:]
        targets = instance_targets(batch_data_samples, (2 * height, 2 * width))
        losses, assignments = knet_losses(initial, stages, targets, self.cost_weights, self.loss_weights, self.points)
        return TrainingPass(losses, stages, assignments)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], rescale: bool = True
    ) -> list[DetDataSample]:
        """Fill in `pred_instances`: scores, labels, bboxes and masks.

        Masks have the image's original size or, with `rescale=False`, the size of the network's input without padding.
        """
        cls_logits, mask_logits = self._forward(batch_inputs)
        height, width = batch_inputs.shape[-2:]
        results = [
            predict_instances(
                cls_logits[i],
                mask_logits[i],
                padded_size=(height, width),
                image_size=sample.img_shape[:2],
                output_size=(sample.ori_shape if rescale else sample.img_shape)[:2],
                **self.test_cfg,
            )
            for i, sample in enumerate(batch_data_samples)
        ]
        return self.add_pred_to_datasample(list(batch_data_samples), results)

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The last stage's class logits (B, N, K) and mask logits (B, N, H/s, W/s)."""
        initial = self.rpn_head(self.extract_feat(batch_inputs))
        last = self.roi_head(initial.features, initial.kernels, initial.mask_logits)[-1]
        return last.cls_logits, last.mask_logits
