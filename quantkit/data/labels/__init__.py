"""The true classes of samples, wherever a data set has them."""

from quantkit.data.labels.class_labels import LabelOptions, Labels, LabelTask
from quantkit.data.labels.sources import open_labels

__all__ = ["LabelOptions", "LabelTask", "Labels", "open_labels"]
