"""The inputs from which TensorRT 8.6 (IInt8*Calibrator, H200) wrote the tables beside this file.

`batches("A")` is what A_*.cache was calibrated on: 8 batches; `batches("B")`: the first batch alone.
A batch maps in0 … in23 to float32 [1, 1, 256, 256]. out0 … out23 in the tables are MaxPool 2x2, stride 2, of the same.
Legacy used quantile 0.9999 and regression cutoff 1.0.
"""

import numpy as np

ELEMENTS = 65_536


def values(kind: int, batch: int) -> np.ndarray:
    """float32 [65536] of distribution `kind` (0 … 23) in batch `batch` (0 … 7)."""
    r = np.random.default_rng([kind, batch])
    n = ELEMENTS

    def normal(std: float = 1.0, mean: float = 0.0) -> np.ndarray:
        return r.normal(mean, std, n)

    def swish(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    draw = [
        lambda: normal(),
        lambda: np.maximum(normal(), 0),
        lambda: r.uniform(-1, 1, n),
        lambda: r.uniform(0, 1, n),
        lambda: r.laplace(0, 1, n),
        lambda: r.exponential(1, n),
        lambda: r.standard_t(3, n),
        lambda: r.lognormal(0, 1, n),
        lambda: np.where(r.random(n) < 1e-4, 50.0, normal()),
        lambda: normal(1.0 + batch),  # grows from batch to batch
        lambda: normal(0.3) + np.where(r.random(n) < 0.5, 3, -3),
        lambda: np.where(r.random(n) < 0.9, 0, np.abs(normal())),
        lambda: np.full(n, 0.5),
        lambda: np.zeros(n),
        lambda: r.integers(0, 256, n) / 255.0,
        lambda: np.clip(normal(0.4, 0.5), 0, 1),
        lambda: np.clip(normal(2, 3), 0, 6),
        lambda: swish(normal(2)),
        lambda: normal(1e-6),
        lambda: normal(1e6),
        lambda: r.standard_t(2, n),
        lambda: np.abs(normal()) ** 3,
        lambda: normal(0.1, 5.0),
        lambda: normal(8.0 - batch),  # shrinks
    ]
    return draw[kind]().astype(np.float32)


def batches(experiment: str) -> list[dict[str, np.ndarray]]:
    count = {"A": 8, "B": 1}[experiment]
    return [{f"in{k}": values(k, b).reshape(1, 1, 256, 256) for k in range(24)} for b in range(count)]
