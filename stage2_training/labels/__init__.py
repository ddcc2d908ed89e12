"""Converters of published label formats to COCO JSON; light to import, unlike MMDetection."""
