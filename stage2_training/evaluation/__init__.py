"""Mask AP and learning curves; importing this registers the metric."""

from stage2_training.evaluation.coco import MaskAP, mask_ap
from stage2_training.evaluation.curves import plot_curves, read_curve
from stage2_training.evaluation.scores import AP_NAMES, format_scores, score_table

__all__ = ["AP_NAMES", "MaskAP", "format_scores", "mask_ap", "plot_curves", "read_curve", "score_table"]
