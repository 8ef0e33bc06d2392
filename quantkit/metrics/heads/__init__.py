"""Heads of detectors: how their outputs become boxes, masks and keypoints. A family of layouts is one file."""
