"""AP of masks and boxes, and learning curves; importing this registers the metric."""

from stage2_training.evaluation.coco import MaskAP, coco_scores
from stage2_training.evaluation.curves import mean_curve, plot_curves
from stage2_training.scalars import read_curve
from stage2_training.scores import AP_NAMES, SCORE_NAMES, format_scores

__all__ = [
    "AP_NAMES",
    "SCORE_NAMES",
    "MaskAP",
    "coco_scores",
    "format_scores",
    "mean_curve",
    "plot_curves",
    "read_curve",
]
