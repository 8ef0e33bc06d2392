"""Sections of detectors and segmenters in the report: figures, charts, pictures, and charts for notebooks."""
