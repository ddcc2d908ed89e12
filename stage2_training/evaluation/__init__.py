"""AP of masks and boxes, and learning curves; importing this registers the metric."""

from stage2_training.evaluation.coco_metric import MaskAP, coco_scores
from stage2_training.evaluation.curves import mean_curve, plot_curves

__all__ = ["MaskAP", "coco_scores", "mean_curve", "plot_curves"]
