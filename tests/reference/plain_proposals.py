"""The yardstick: stage 1 as one would write it first, and as it reads in the paper.

One image at a time, the network as it comes, each mask on its own in Python, one JSON file at the end. It shares with
the product the weights and the input size, so that both must find the same proposals, and nothing else.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from torch import Tensor, nn

SCALES = (1.0, 0.5, 0.25)
THRESHOLD = 0.5
NMS_IOU = 0.5
MAX_PROPOSALS = 20


def find_candidates(features: Tensor) -> list[dict[str, Any]]:
    """One mask per seed, with its soft map and score; `features` is (D, h, w)."""
    cells = F.normalize(features, dim=0)
    candidates = []
    for scale in SCALES:
        rows, columns = (max(1, round(side * scale)) for side in features.shape[1:])
        pooled = F.adaptive_avg_pool2d(features, (rows, columns))
        for row in range(rows):
            for column in range(columns):
                seed = F.normalize(pooled[:, row, column], dim=0)
                saliency = (seed[:, None, None] * cells).sum(0)
                saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min())
                mask = saliency > THRESHOLD
                if mask.sum() > 1:
                    score = float(saliency[mask].mean())
                    centre = ((row + 0.5) / rows, (column + 0.5) / columns)
                    candidates.append(
                        {"saliency": saliency, "mask": mask, "score": score, "seed": centre, "feature": seed}
                    )
    return candidates


def suppress(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Greedy mask NMS."""
    kept: list[dict[str, Any]] = []
    for candidate in sorted(candidates, key=lambda item: -item["score"]):
        if len(kept) == MAX_PROPOSALS:
            break
        mask = candidate["mask"]
        if all((mask & other["mask"]).sum() / (mask | other["mask"]).sum() <= NMS_IOU for other in kept):
            kept.append(candidate)
    return kept


def plain_proposals(
    paths: Sequence[Path], sizes: Sequence[tuple[int, int]], network: nn.Module, mean: Tensor, std: Tensor, out: Path
) -> None:
    """Write the proposals of each image to one JSON file, COCO's result format with seeds and features.

    Args:
        sizes: (height, width) of the network's input for each image.
        network: images (1, 3, H, W) to features (1, D, h, w).
        mean, std: of RGB values in 0-255, (1, 3, 1, 1), on the network's device.
    """
    results = []
    for image_id, (path, (rows, columns)) in enumerate(zip(paths, sizes, strict=True)):
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        pixels = torch.from_numpy(np.array(image.resize((columns, rows), Image.Resampling.BILINEAR)))
        with torch.no_grad():
            features = network((pixels.to(mean.device).permute(2, 0, 1)[None].float() - mean) / std)[0]
            for proposal in suppress(find_candidates(features)):
                size = (image.height, image.width)
                soft = F.interpolate(proposal["saliency"][None, None], size, mode="bilinear")[0, 0]
                mask = np.asfortranarray((soft > THRESHOLD).cpu().numpy().astype(np.uint8))
                rle = coco_mask.encode(mask)
                results.append(
                    {
                        "image_id": image_id,
                        "segmentation": {"size": list(size), "counts": rle["counts"].decode()},
                        "bbox": coco_mask.toBbox(rle).tolist(),
                        "area": int(mask.sum()),
                        "score": proposal["score"],
                        "seed": proposal["seed"],
                        "feature": proposal["feature"].tolist(),
                    }
                )
    out.write_text(json.dumps(results))
