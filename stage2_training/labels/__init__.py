"""Converters of label formats to COCO JSON; none of them imports MMDetection."""
