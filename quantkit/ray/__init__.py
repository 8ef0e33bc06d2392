"""Statistics of a `ray.data.Dataset`, for those who hold one.

    import ray
    import quantkit.ray

    images = ray.data.read_binary_files("s3://bucket/train/", include_paths=True)
    statistics = quantkit.ray.statistics(images, "model.onnx", "imagenet")
    quantkit.tables_from(statistics, "mse")

`quantkit.calibrate(…, on="ray")` needs no dataset: it reads the data itself, in order, and goes on after a failure.
"""

from quantkit.executors.actors import import_ray
from quantkit.ray.dataset import statistics

try:
    import_ray()
except Exception as error:
    raise ImportError(str(error)) from None

__all__ = ["statistics"]
