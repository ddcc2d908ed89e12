"""Run a detector of `make export` with onnxruntime and NumPy: python onnx_example.py detector.onnx image.npy."""

import json
import sys

import numpy as np
import onnxruntime


def resize(maps, height, width):  # bilinear, (..., h, w) -> (..., height, width)
    for axis, length in ((-2, height), (-1, width)):
        size = maps.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * size / length - 0.5, 0, size - 1)
        first = np.minimum(place.astype(int), max(size - 2, 0))
        share = (place - first).reshape((-1, 1) if axis == -2 else (-1,)).astype(np.float32)
        after = np.minimum(first + 1, size - 1)
        maps = np.take(maps, first, axis) * (1 - share) + np.take(maps, after, axis) * share
    return maps


def largest_piece(mask):  # bool (H, W) -> of its connected parts, the one with the most pixels
    (rows, columns), kept = np.nonzero(mask), mask
    if len(rows):
        box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        inside = mask[box]
        number, last = np.arange(1, inside.size + 1).reshape(inside.shape) * inside, None
        while last is None or (number != last).any():  # the highest number spreads through each part
            last = number
            for axis in (0, 1):  # one after the other, so also over corners
                width = [(int(axis == each),) * 2 for each in (0, 1)]
                around = np.lib.stride_tricks.sliding_window_view(np.pad(number, width), 3, axis)
                number = around.max(-1)
            number = number * inside
            number = number.ravel()[number - 1] * inside  # and from where it comes
        kept = np.zeros_like(mask)
        kept[box] = inside & (number == np.bincount(number[inside]).argmax())
    return kept


def detect(session, image):  # uint8 (H, W, 3) RGB -> scores (R,), labels (R,), masks bool (R, H, W)
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    if about["tiles"]:
        raise SystemExit(
            f"trained on tiles of {about['tiles']} pixels: cut the image and join what is found, see export.md"
        )
    (height, width), longer, shorter = image.shape[:2], max(about["scale"]), min(about["scale"])
    factor = min(longer / max(height, width), shorter / min(height, width))
    small = int(height * factor + 0.5), int(width * factor + 0.5)
    pixels = np.round(resize(image.transpose(2, 0, 1).astype(np.float32), *small))
    mean, std = (np.float32(about[key])[:, None, None] for key in ("mean", "std"))
    padded = (-(-side // about["divisor"]) * about["divisor"] for side in small)
    images = np.zeros((1, 3, *padded), np.float32)
    images[0, :, : small[0], : small[1]] = (pixels - mean) / std
    given = {"images": images, "sizes": np.int64([small])}
    names = {each.name for each in session.get_inputs()}
    scores, labels, masks = (found[0] for found in session.run(None, {name: given[name] for name in names}))
    masks = resize(masks[:, : small[0], : small[1]], height, width) > about["threshold"]
    return scores, labels, np.stack([largest_piece(mask) for mask in masks]) if about.get("one_piece") else masks


if __name__ == "__main__":
    scores, labels, masks = detect(onnxruntime.InferenceSession(sys.argv[1]), np.load(sys.argv[2]))
    for score, label, mask in zip(scores, labels, masks, strict=True):
        print(f"class {label}  score {score:.2f}  {mask.sum()} pixels")
