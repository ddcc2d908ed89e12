"""The six AP scores as text."""

from collections.abc import Mapping

from stage2_training.evaluation.coco import AP_NAMES


def format_scores(scores: Mapping[str, float]) -> str:
    """Two lines: the names, and the values in percent; `-` where there are no objects of that size."""
    values = ["-" if scores[name] < 0 else f"{100 * scores[name]:.1f}" for name in AP_NAMES]
    return "\n".join("".join(cell.rjust(7) for cell in row) for row in (AP_NAMES, values))
