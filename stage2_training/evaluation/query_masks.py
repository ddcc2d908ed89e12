"""What each query of a detector sees in an image: the mask that it predicts last, however sure of an object it is."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector, MaskFormer, QueryInst
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.knet.detector import KNet

SIDE = 200  # as in the paper's Figure 6


@torch.no_grad()
def query_masks(model: BaseDetector, images: Tensor, samples: Sequence[DetDataSample]) -> Tensor:
    """Mask probabilities float32 (B, N, 200, 200) of each query's last prediction, in the image without its padding.

    Args:
        model: K-Net, MaskFormer, Mask2Former or QueryInst, in evaluation mode.
        images: (B, 3, H, W), preprocessed and padded.
        samples: theirs, with `img_shape`.

    Raises:
        UserError: a detector without queries.
    """
    if isinstance(model, KNet):
        return _whole_image(model(images, samples)[1], images, samples)
    if isinstance(model, MaskFormer):  # Mask2Former is one, too
        return _whole_image(model(images, samples)[1][-1], images, samples)
    if isinstance(model, QueryInst):
        return _in_boxes(model, images, samples)
    raise UserError(f"{type(model).__name__}: has no queries whose masks could be drawn")


def _whole_image(logits: Tensor, images: Tensor, samples: Sequence[DetDataSample]) -> Tensor:
    """Mask logits (B, N, h, w) of the padded images -> (B, N, 200, 200)."""
    places = (torch.arange(SIDE, device=logits.device) + 0.5) / SIDE  # of pixels' middles, in [0, 1]
    grids = []
    for sample in samples:
        filled = [2 * side / padded for side, padded in zip(sample.img_shape, images.shape[-2:], strict=True)]
        y, x = (places * share - 1 for share in filled)
        grids.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1))
    grid = torch.stack(grids)
    return F.grid_sample(logits.float(), grid, padding_mode="border", align_corners=False).sigmoid()


def _in_boxes(model: QueryInst, images: Tensor, samples: Sequence[DetDataSample]) -> Tensor:
    """QueryInst's masks are predicted in its boxes and are zero around them; each is that of its likeliest class."""
    head, scores = model.roi_head, []
    features = model.extract_feat(images)
    start = model.rpn_head.predict(features, samples, rescale=False)
    watch = head.bbox_head[-1].register_forward_hook(lambda module, args, output: scores.append(output[0]))
    with watch:
        found = head.predict_bbox(features, [sample.metainfo for sample in samples], start, head.test_cfg)
    boxes = [each.proposals for each in found]  # of all queries, in their order
    extractor = head.mask_roi_extractor[-1]
    regions = extractor(features[: extractor.num_inputs], bbox2roi(boxes))
    logits = head.mask_head[-1](regions, torch.stack([each.attn_feats for each in found]))  # (B * N, K, 28, 28)
    classes = scores[0].flatten(0, 1).argmax(dim=1)
    masks = logits[torch.arange(len(logits)), classes, None].float().sigmoid().unflatten(0, (len(samples), -1))
    return torch.stack([_pasted(*each) for each in zip(masks, boxes, samples, strict=True)])


def _pasted(masks: Tensor, boxes: Tensor, sample: DetDataSample) -> Tensor:
    """Masks (N, 1, 28, 28) in boxes (N, 4) of the network's input -> (N, 200, 200)."""
    height, width = sample.img_shape
    boxes = boxes * SIDE / boxes.new_tensor([width, height, width, height])
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 1e-3)], dim=1)  # none without extent
    return _do_paste_mask(masks, boxes, SIDE, SIDE, skip_empty=False)[0]
