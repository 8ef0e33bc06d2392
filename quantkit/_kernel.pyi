import numpy as np
from numpy.typing import NDArray

def extremes(x: NDArray[np.float32], /) -> tuple[float, float, bool]: ...
def observe(
    x: NDArray[np.float32],
    counts: NDArray[np.int64],
    state: NDArray[np.float64],
    invariant: bool,
    /,
) -> bool: ...
def channel_sums(
    x: NDArray[np.float32],
    units: int,
    rows: int,
    channels: int,
    inner: int,
    ranges: NDArray[np.float32],
    sums: NDArray[np.int64],
    /,
) -> None: ...
def gather(
    pixels: NDArray[np.uint8],
    table: NDArray[np.float32],
    out: NDArray[np.float32],
    /,
) -> None: ...
