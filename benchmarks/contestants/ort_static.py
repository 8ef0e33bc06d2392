"""onnxruntime's `quantize_static`: calibrate and write a Q/DQ model, symmetric int8, per channel.

Called as `python -m contestants.ort_static MinMax|Entropy …`. The model goes in as it is: the
optional pre-processing step is left out (the networks have no batch normalization left to fold).
"""

from __future__ import annotations

import sys

from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from contestants.images import Images, Reader
from contestants.job import job


def main() -> None:
    """Quantize one network."""
    method = CalibrationMethod[sys.argv.pop(1)]
    task = job()
    quantize_static(
        task.model,
        task.output / "quantized.onnx",
        Reader(Images(task)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


if __name__ == "__main__":
    main()
