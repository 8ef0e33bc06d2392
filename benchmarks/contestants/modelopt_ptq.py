"""NVIDIA Model Optimizer's ONNX INT8 quantization: calibrate on the CPU and write a Q/DQ model.

Called as `python -m contestants.modelopt_ptq max|entropy …`. Two defaults are changed: the CPU is
named as the only execution provider, and what is not INT8 stays FP32 (the default converts it to
FP16, which no other contestant does).
"""

from __future__ import annotations

import shutil
import sys

from modelopt.onnx.quantization import quantize

from contestants.images import Images, Reader
from contestants.job import job


def main() -> None:
    """Quantize one network."""
    method = sys.argv.pop(1)
    task = job()
    model = task.output / "model.onnx"
    shutil.copyfile(task.model, model)  # it writes its own version over the model that it is given
    quantize(
        str(model),
        quantize_mode="int8",
        calibration_method=method,
        calibration_data_reader=Reader(Images(task)),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(task.output / "quantized.onnx"),
    )


if __name__ == "__main__":
    main()
