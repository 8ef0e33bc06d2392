import numpy as np
from numpy.typing import NDArray

def compensate(
    left: NDArray[np.float64],
    codes: NDArray[np.float64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
    inverse: NDArray[np.float64],
    errors: NDArray[np.float64],
    start: int,
    /,
) -> None: ...
def descend(
    codes: NDArray[np.float64],
    slope: NDArray[np.float64],
    gram: NDArray[np.float64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
    order: NDArray[np.int64],
    sweeps: int,
    /,
) -> None: ...
