"""NNCF's post-training quantization of an ONNX model, every option at its default.

The default `subset_size` of 300 counts the items of the dataset, which are batches of 32 here: all
images are used up to 9,600. The dataset names no batch size, since NNCF would then use 300 images.
"""

from __future__ import annotations

import nncf
import onnx

from contestants.images import Images
from contestants.job import job


def main() -> None:
    """Quantize one network."""
    task = job()
    quantized = nncf.quantize(onnx.load(task.model), nncf.Dataset(Images(task)))
    onnx.save(quantized, task.output / "quantized.onnx")


if __name__ == "__main__":
    main()
