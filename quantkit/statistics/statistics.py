"""Statistics: a histogram for every tensor, channel sums of the inputs of weighted operators, and their origin."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from quantkit.frozen_record import FrozenRecord
from quantkit.histogram import ChannelImportance, Histogram, HistogramMode
from quantkit.kernel import sum_values
from quantkit.sharding import ShardRecord
from quantkit.view import Block, RichDisplay, ViewTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantkit.statistics.seams import Seam


class Origin(FrozenRecord):
    """The origin of statistics: everything that the numbers depend on, and nothing else.

    In `invariant` mode they do not depend on the order and the batches: `order`, `batch_size` and `batches` are absent,
    and statistics of the same samples are the same bytes, however they were collected.
    """

    model: str
    """sha256 of the model's graph and weights."""
    data: Annotated[str, Field(pattern="^[0-9a-f]*$")]
    """Sum of the sha256 of the samples, modulo 2^256."""
    samples: int
    preprocess: dict[str, Any] | None = None
    """The preprocessing that was applied; None if arrays were fed unchanged."""
    histogram: HistogramMode
    backend: str
    """Library and execution provider, for example `onnxruntime 1.32.0 cpu`."""
    slice: int
    """The largest number of samples per run, 0 for whole batches: sums may depend on it in the last bit."""
    order: str | None = None
    """sha256 over the samples in order, batch by batch."""
    batch_size: int | None = None
    batches: int | None = None


@dataclass(frozen=True, slots=True)
class Channels:
    """Figures per channel of the input of a weighted operator, with the channels along `axis` of the tensor.

    minimum, maximum: float32 [C], exact. sums: int64 [C, 2, 4], exact sums of x and of x² (quantkit.kernel).
    elements: values per channel. gain: relative gains [C] of the channels (quantkit.graph.channel_gains); None where no
    stored weight reads them, and in files of quantkit 0.1.
    """

    tensor: str
    axis: int
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    sums: NDArray[np.int64]
    elements: int
    gain: NDArray[np.float32] | None = None

    @property
    def sum(self) -> NDArray[np.float64]:
        """Σ x per channel."""
        return sum_values(self.sums[:, 0])

    @property
    def sum_of_squares(self) -> NDArray[np.float64]:
        """Σ x² per channel."""
        return sum_values(self.sums[:, 1])

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean per channel."""
        return self.sum / max(self.elements, 1)

    @property
    def importance(self) -> ChannelImportance | None:
        """The importance of the channels to the next layers; None without gains."""
        if self.gain is None:
            return None
        largest = np.maximum(np.abs(self.minimum), np.abs(self.maximum))
        return ChannelImportance(self.gain, largest, self.sum_of_squares / max(self.elements, 1), self.elements)


@dataclass(frozen=True, slots=True)
class Statistics(RichDisplay):
    """Histograms by tensor name, in the order of the table; `shared` maps a pool's output to the tensor whose scale it
    takes. unscalable: tensors whose values no scale represents (NaN, Inf, masks); they have no histogram.

    samples: the first 64 bits of the sha256 of every sample, uint64 [N], ascending, so that parts with common samples
    are not merged; None in `tensorrt` mode and in statistics of quantkit 0.1.
    """

    histograms: Mapping[str, Histogram]
    channels: tuple[Channels, ...]
    shared: Mapping[str, str]
    origin: Origin
    samples: NDArray[np.uint64] | None = None
    unscalable: tuple[str, ...] = ()
    shard: ShardRecord | None = None
    """The part of a run that these are; None for statistics of a whole run."""
    chain: bytes | None = None
    """Of a shard: the bytes whose sha256 is the order of its data (`DataIdentity.chain`), so that shards have one."""
    seams: Mapping[str, Seam] | None = None
    """Of a shard in `tensorrt` mode: what joins the histogram of each tensor to those of the shards beside it."""

    def __post_init__(self) -> None:
        seen = with_importance(self.histograms, self.channels, self.origin.samples)
        object.__setattr__(self, "histograms", seen)

    def __len__(self) -> int:
        return len(self.histograms)

    @property
    def has_gains(self) -> bool:
        """Return whether channels have gains, if there are channels."""
        return not self.channels or any(view.gain is not None for view in self.channels)

    def with_gains(self, gains: Mapping[tuple[str, int], NDArray[np.float32]]) -> Statistics:
        """Return the statistics with the gains of channels, by tensor and axis, where they fit the channels."""
        return replace(self, channels=tuple(given_gain(view, gains) for view in self.channels))

    def without(self, unscalable: Collection[str]) -> Statistics:
        """Return the statistics in which these tensors have no histogram either."""
        gone = {*self.unscalable, *unscalable}
        return replace(
            self,
            histograms={name: h for name, h in self.histograms.items() if name not in gone},
            channels=tuple(view for view in self.channels if view.tensor not in gone),
            shared={pool: source for pool, source in self.shared.items() if not {pool, source} & gone},
            unscalable=tuple(sorted(gone)),
            seams=None if self.seams is None else {n: seam for n, seam in self.seams.items() if n not in gone},
        )

    def _view_(self) -> Sequence[Block]:
        rows = [
            (name, f"{h.minimum:.4g}", f"{h.maximum:.4g}", f"{h.elements:,}") for name, h in self.histograms.items()
        ]
        origin = self.origin
        return (
            f"Statistics of {len(self)} tensors over {origin.samples:,} samples, {origin.histogram.value} histograms",
            ViewTable(("tensor", "minimum", "maximum", "values"), rows),
        )


def given_gain(view: Channels, gains: Mapping[tuple[str, int], NDArray[np.float32]]) -> Channels:
    """Return the figures with the gains of their channels, if there are as many."""
    gain = gains.get((view.tensor, view.axis))
    return view if gain is None or len(gain) != len(view.minimum) else replace(view, gain=gain)


def with_importance(
    histograms: Mapping[str, Histogram], channels: Sequence[Channels], samples: int
) -> dict[str, Histogram]:
    """Return histograms of so many samples with the importance of their channels, as far as those have gains."""
    known: dict[str, ChannelImportance] = {}
    for view in channels:
        if (importance := view.importance) is not None:
            known.setdefault(view.tensor, importance)
    return {name: replace(h, importance=known.get(name), samples=samples) for name, h in histograms.items()}
