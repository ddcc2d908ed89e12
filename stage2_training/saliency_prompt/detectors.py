"""The detectors of this project. Each declares here all that is its own, under one heading per model.

A model of your own can be declared in this file, or in a module of your own that its config names in
`custom_imports`; nothing else has to know of it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import DETR, DeformableDETR, Mask2Former, MaskFormer, QueryInst, SOLOv2
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import ConfigType
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment
from stage2_training.knet.detector import KNet
from stage2_training.knet.heads import KernelHeadOutput
from stage2_training.saliency_prompt.grid_cells import WeakSOLOV2Head
from stage2_training.saliency_prompt.mixin import PromptedPass, SaliencyPromptAdapter, SaliencyPromptMixin
from stage2_training.saliency_prompt.prompter import Prompter, PromptMap, PromptMatch
from stage2_training.saliency_prompt.query_hooks import QueryDecoder
from stage2_training.saliency_prompt.weak_mask_loss import similar_neighbors


class QueryMasks(NamedTuple):
    """The mask that each of N queries predicts last, in each of B images.

    Attributes:
        logits: (B, N, h, w), of the whole padded input or of the boxes.
        boxes: (B, N, 4): x1, y1, x2, y2 in pixels of the padded input; None: masks cover the whole padded input.
    """

    logits: Tensor
    boxes: Tensor | None = None


@dataclass(frozen=True)
class DetectorTraits:
    """What this project has to know of a detector besides what MMDetection knows.

    Attributes:
        pretrained_parts: leading names of the tensors that pre-training is for: a pre-trained checkpoint that cannot
            fill one of them is refused.
        class_branch: matches (`search`) the names of the tensors whose shape follows the number of classes. They may
            stay at their own initialisation, and are not taken over from pseudo classes.
        class_masks: matches the names of tensors of the class branch with a row per class that makes its masks. The
            only row of a class-agnostic model serves every class as well. None: the masks are class-agnostic.
        queries: the setting of `model` that is its number of queries; None: the detector has no queries.
        query_rows: matches the names of learned tensors with a row per query.
        detections: the setting of `model` that is how many objects it returns of an image.
        one_piece: the setting of `model` by which masks keep their largest connected part alone; None: it has none.
        query_masks: from the detector in evaluation mode, images (B, 3, H, W) and their samples to its `QueryMasks`;
            None: the detector has no queries, or no masks.
        masks: whether it predicts masks; else boxes alone.
    """

    pretrained_parts: tuple[str, ...] = ()
    class_branch: re.Pattern[str] = re.compile(r"(^|\.)(fc_cls|conv_cls|conv_seg|cls_embed|conv_logits)\.")
    class_masks: re.Pattern[str] | None = None
    queries: str | None = None
    query_rows: re.Pattern[str] | None = None
    detections: str | None = None
    one_piece: str | None = None
    query_masks: Callable[[Any, Tensor, Sequence[DetDataSample]], QueryMasks] | None = None
    masks: bool = True


_TRAITS: dict[str, DetectorTraits] = {}


def declare_traits(*detector_types: str, traits: DetectorTraits) -> None:
    """State a detector's traits, for its registered type and that of its Saliency Prompt variant."""
    _TRAITS.update(dict.fromkeys(detector_types, traits))


def detector_traits(detector_type: str) -> DetectorTraits:
    """The traits of a detector.

    Args:
        detector_type: registered name, of the vanilla detector or of its Saliency Prompt variant. A detector without a
            declaration has the defaults of `DetectorTraits`.
    """
    return _TRAITS.get(detector_type, DetectorTraits())


def require_masks(detector_type: str) -> None:
    """Check that a detector predicts masks, for what cannot be done with boxes.

    Raises:
        UserError: it does not.
    """
    if not detector_traits(detector_type).masks:
        name = detector_type.removeprefix("SaliencyPrompt")
        raise UserError(f"{name}: finds boxes alone, and this needs masks; `make evaluate` scores its boxes")


# --- K-Net ---


@MODELS.register_module()
class SaliencyPromptKNet(SaliencyPromptMixin, KNet):
    """K-Net whose kernels, in training only, get prompts and, after each update stage, a loss.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of `KNet`.

    Raises:
        UserError: an unknown setting, a bad value, or settings that contradict each other.
    """

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_saliency_prompt(saliency_prompt, self.rpn_head.initial_kernels.shape[1])
        settings = self.prompter.settings
        settings.check_level(len(self.rpn_head.localization_fpn.convs_all_levels))
        if settings.groups:
            raise UserError("saliency_prompt.groups: K-Net cannot keep its kernels apart; leave it out")
        if (settings.match_on, settings.add_to) == ("object", "initial"):
            raise UserError(
                "saliency_prompt.match_on 'object': the per-image kernels exist only after the first masks; "
                "use it with add_to=object"
            )

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """The losses of a `prompted_pass`."""
        return self.prompted_pass(batch_inputs, batch_data_samples).losses

    def prompted_pass(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Sequence[DetDataSample],
        prompter: Prompter | None = None,
    ) -> PromptedPass:
        """K-Net's training pass, with prompts added before or after the kernels make their first masks.

        Args:
            batch_inputs: images (B, 3, H, W).
            batch_data_samples: with `gt_instances`.
            prompter: used instead of the detector's own.
        """
        prompter = prompter or self.prompter
        learned = self.rpn_head.initial_kernels
        match: PromptMatch | None = None

        def prompted_kernel_head(feats: Sequence[Tensor]) -> KernelHeadOutput:
            nonlocal match
            settings = prompter.settings

            def prompted_kernels(localization: Tensor) -> Tensor:
                nonlocal match
                maps = PromptMap(feats, lambda: localization, self.level_offset)
                match = prompter.match(learned, maps, batch_data_samples, self.training)
                return prompter.add(learned.expand(len(batch_data_samples), -1, -1), match, reference=learned)

            if settings.add_to == "initial":
                output: KernelHeadOutput = self.rpn_head(feats, prompted_kernels)
                return output
            plain: KernelHeadOutput = self.rpn_head(feats)
            reference = learned if settings.match_on == "initial" else plain.kernels
            maps = PromptMap(feats, lambda: plain.features, self.level_offset)
            match = prompter.match(reference, maps, batch_data_samples, self.training)
            return plain._replace(kernels=prompter.add(plain.kernels, match, reference))

        losses, stages, assignments = self.training_pass(batch_inputs, batch_data_samples, prompted_kernel_head)
        kernels = [stage.kernels for stage in stages]
        losses |= self.kernel_losses(kernels, assignments, batch_data_samples, match)
        return PromptedPass(losses, match, kernels, assignments)


def _knet_query_masks(model: KNet, images: Tensor, samples: Sequence[DetDataSample]) -> QueryMasks:
    _, mask_logits = model(images, samples)
    return QueryMasks(mask_logits)


declare_traits(
    "KNet",
    "SaliencyPromptKNet",
    traits=DetectorTraits(
        pretrained_parts=("rpn_head.init_kernels", "rpn_head.localization_fpn", "roi_head.mask_head"),
        class_branch=re.compile(r"^rpn_head\.conv_seg\.|^roi_head\.mask_head\.\d+\.fc_cls\."),
        queries="rpn_head.num_kernels",
        query_rows=re.compile(r"^rpn_head\.init_kernels\."),
        detections="test_cfg.max_per_img",
        one_piece="test_cfg.one_piece",
        query_masks=_knet_query_masks,
    ),
)


# --- Mask2Former and MaskFormer ---


@MODELS.register_module()
class SaliencyPromptMask2Former(SaliencyPromptAdapter, Mask2Former):
    """Mask2Former whose query content embeddings get prompts before the first prediction.

    The mask embedding of that prediction gets them, too: its masks guide the attention of the first layer.
    """

    def query_decoder(self) -> QueryDecoder:
        head = self.panoptic_head
        return QueryDecoder(
            learned=head.query_feat.weight,
            layers=head.transformer_decoder.layers,
            argument="query",
            output=lambda queries: queries,
            pyramid=head.pixel_decoder,
            levels=lambda returned: returned[1][::-1],  # coarsest first, after the features that masks are made of
            query_map=lambda returned, size: returned[0],
            assigners=[head.assigner],
            first_norm=head.transformer_decoder.post_norm,
            mask_embedding=head.mask_embed,
        )


@MODELS.register_module()
class SaliencyPromptMaskFormer(SaliencyPromptAdapter, MaskFormer):
    """MaskFormer whose decoder starts from prompts instead of zeros.

    All it learns of a query is its positional embedding, so prompts are compared with that.
    """

    def query_decoder(self) -> QueryDecoder:
        head = self.panoptic_head
        return QueryDecoder(
            learned=head.query_embed.weight,
            layers=head.transformer_decoder.layers,
            argument="query",
            output=lambda queries: queries,
            pyramid=head.pixel_decoder,
            levels=list,  # what masks are made of, at stride 4, and what the decoder attends to, at stride 32
            query_map=lambda returned, size: returned[0],
            assigners=[head.assigner],
        )


def _last_layer_masks(model: MaskFormer, images: Tensor, samples: Sequence[DetDataSample]) -> QueryMasks:
    _, mask_logits = model(images, samples)
    return QueryMasks(mask_logits[-1])


declare_traits(
    "Mask2Former",
    "SaliencyPromptMask2Former",
    "MaskFormer",
    "SaliencyPromptMaskFormer",
    traits=DetectorTraits(
        pretrained_parts=("panoptic_head",),
        class_branch=re.compile(r"^panoptic_head\.cls_embed\."),
        queries="panoptic_head.num_queries",
        query_rows=re.compile(r"^panoptic_head\.query_(feat|embed)\."),
        detections="test_cfg.max_per_image",
        one_piece="test_cfg.one_piece",
        query_masks=_last_layer_masks,
    ),
)


# --- QueryInst ---


@MODELS.register_module()
class SaliencyPromptQueryInst(SaliencyPromptAdapter, QueryInst):
    """QueryInst whose initial proposal features get prompts; its stages put out object features."""

    def query_decoder(self) -> QueryDecoder:
        return QueryDecoder(
            learned=self.rpn_head.init_proposal_features.weight,
            layers=self.roi_head.bbox_head,
            argument="proposal_feat",
            output=lambda returned: returned[2],  # after class scores and box deltas
            pyramid=self.neck,
            levels=list,
            query_map=self._first_regions,
            assigners=self.roi_head.bbox_assigner,
        )

    def _first_regions(self, levels: Sequence[Tensor], input_size: tuple[int, int]) -> Tensor:
        """The level of the pyramid that the first stage's regions, the whole image for every query, are cut from."""
        extractor = self.roi_head.bbox_roi_extractor[0]
        height, width = input_size
        whole_image = levels[0].new_tensor([[0, 0, 0, width, height]])
        return levels[int(extractor.map_roi_levels(whole_image, extractor.num_inputs))]


def _queryinst_query_masks(model: QueryInst, images: Tensor, samples: Sequence[DetDataSample]) -> QueryMasks:
    """QueryInst predicts a mask of each class in each query's box; that of the likeliest class is taken."""
    head, cls_logits = model.roi_head, []
    features = model.extract_feat(images)
    proposals = model.rpn_head.predict(features, samples, rescale=False)
    with head.bbox_head[-1].register_forward_hook(lambda module, args, output: cls_logits.append(output[0])):
        predicted = head.predict_bbox(features, [sample.metainfo for sample in samples], proposals, head.test_cfg)
    boxes = [instances.proposals for instances in predicted]  # of all queries, in their order
    extractor = head.mask_roi_extractor[-1]
    regions = extractor(features[: extractor.num_inputs], bbox2roi(boxes))
    object_features = torch.stack([instances.attn_feats for instances in predicted])
    logits = head.mask_head[-1](regions, object_features)  # (B * N, K, 28, 28)
    classes = cls_logits[0].flatten(0, 1).argmax(dim=1)
    logits = logits[torch.arange(len(logits)), classes].unflatten(0, (len(samples), -1))
    return QueryMasks(logits, torch.stack(boxes))


declare_traits(
    "QueryInst",
    "SaliencyPromptQueryInst",
    traits=DetectorTraits(
        pretrained_parts=("neck", "rpn_head", "roi_head"),
        class_branch=re.compile(r"^roi_head\.(bbox_head\.\d+\.fc_cls|mask_head\.\d+\.conv_logits)\."),
        class_masks=re.compile(r"^roi_head\.mask_head\.\d+\.conv_logits\."),
        queries="rpn_head.num_proposals",
        query_rows=re.compile(r"^rpn_head\.init_proposal_(bboxes|features)\."),
        detections="test_cfg.rcnn.max_per_img",
        one_piece="test_cfg.rcnn.one_piece",
        query_masks=_queryinst_query_masks,
    ),
)


# --- DETR and Deformable DETR, which predict boxes alone ---


@MODELS.register_module()
class SaliencyPromptDETR(SaliencyPromptAdapter, DETR):
    """DETR whose learned queries, positional embeddings that enter every layer, get prompts (UP-DETR).

    A linear layer makes prompts of the backbone's last map.
    """

    def query_decoder(self) -> QueryDecoder:
        return QueryDecoder(
            learned=self.query_embedding.weight,
            layers=[self.decoder],
            argument="query_pos",
            output=list,  # of all layers, normalised
            pyramid=self.backbone,
            levels=list,
            assigners=[self.bbox_head.assigner],
            prompt_channels=self.neck.convs[-1].in_channels,
            self_attention=[layer.self_attn for layer in self.decoder.layers],
        )


@MODELS.register_module()
class SaliencyPromptDeformableDETR(SaliencyPromptAdapter, DeformableDETR):
    """Deformable DETR whose query content embeddings get prompts; DETReg's has none, but an embedding head."""

    def query_decoder(self) -> QueryDecoder:
        return QueryDecoder(
            learned=self.query_embedding.weight[:, self.embed_dims :],  # the first half are positional embeddings
            layers=[self.decoder],
            argument="query",
            output=lambda returned: list(returned[0]),  # of all layers; reference points follow
            pyramid=self.neck,
            levels=list,
            assigners=[self.bbox_head.assigner],
            self_attention=[layer.self_attn for layer in self.decoder.layers],
        )


_DETR_TRAITS = DetectorTraits(
    pretrained_parts=("neck", "encoder", "decoder", "query_embedding", "bbox_head"),
    class_branch=re.compile(r"^bbox_head\.(fc_cls|cls_branches\.\d+)\."),
    queries="num_queries",
    query_rows=re.compile(r"^query_embedding\."),
    detections="test_cfg.max_per_img",
    masks=False,
)
declare_traits("DETR", "SaliencyPromptDETR", traits=_DETR_TRAITS)
declare_traits(
    "DeformableDETR",
    "SaliencyPromptDeformableDETR",
    traits=replace(
        _DETR_TRAITS, pretrained_parts=(*_DETR_TRAITS.pretrained_parts, "level_embed", "reference_points_fc")
    ),
)


# --- SOLOv2, which has grid cells instead of queries ---


@MODELS.register_module()
class SaliencyPromptSOLOv2(SaliencyPromptMixin, SOLOv2):
    """SOLOv2 whose masks get weak losses, and whose grid cells a loss on what they stand for (FreeSOLO).

    Its mask head is a `WeakSOLOV2Head`. A cell's feature is that which its class is predicted from. There are no
    queries that prompts could be added to.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of `SOLOv2`.

    Raises:
        UserError: an unknown setting, a bad value, or settings that contradict each other.
    """

    mask_head: WeakSOLOV2Head

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_saliency_prompt(saliency_prompt, self.mask_head.feat_channels)
        if (matching := self.prompter.settings.matching) != "none":
            raise UserError(
                f"saliency_prompt.matching {matching!r}: SOLOv2 has no queries that prompts could be added to; use "
                f"matching=none"
            )

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """SOLOv2's losses, and `s0.loss_kernel` of the grid cells."""
        images = batch_inputs * self.data_preprocessor.std + self.data_preprocessor.mean
        for image, sample in zip(images, batch_data_samples, strict=True):
            similar = similar_neighbors(image, sample.img_shape[:2])
            sample.gt_instances.similar_neighbors = similar.expand(len(sample.gt_instances), *similar.shape)
        levels: list[Tensor] = []
        instances: list[Tensor] = []
        self.mask_head.observer = instances.append
        with self.mask_head.conv_cls.register_forward_pre_hook(lambda _, args: levels.append(args[0])):
            losses: dict[str, Tensor] = super().loss(batch_inputs, batch_data_samples)
        self.mask_head.observer = None
        cells = torch.cat([level.flatten(2) for level in levels], dim=2).mT  # (B, cells, C)
        instance_of_cell = torch.stack(instances)
        image_index, cell = (instance_of_cell >= 0).nonzero(as_tuple=True)
        assignment = Assignment(image_index, cell, instance_of_cell[image_index, cell])
        return losses | self.kernel_losses([cells], [assignment], batch_data_samples)


declare_traits(
    "SOLOv2",
    "SaliencyPromptSOLOv2",
    traits=DetectorTraits(
        pretrained_parts=("neck", "mask_head"),
        class_branch=re.compile(r"^mask_head\.conv_cls\."),
        detections="test_cfg.max_per_img",
    ),
)


# --- Mask R-CNN, a baseline that pre-trains on pseudo labels without prompts ---

declare_traits(
    "MaskRCNN",
    traits=DetectorTraits(
        pretrained_parts=("neck", "rpn_head", "roi_head"),
        class_branch=re.compile(r"^roi_head\.(bbox_head\.fc_cls|bbox_head\.fc_reg|mask_head\.conv_logits)\."),
        class_masks=re.compile(r"^roi_head\.mask_head\.conv_logits\."),
        detections="test_cfg.rcnn.max_per_img",
    ),
)
