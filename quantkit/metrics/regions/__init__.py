"""Regions of semantic segmentation: the class of every pixel, and how far two such maps agree."""
