"""Batches with the outputs of a reference network, in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from quantkit.backends.session import Session, SessionOpener
from quantkit.data import Feed
from quantkit.errors import ModelError
from quantkit.graph import Model
from quantkit.graph.selected_outputs import comparable_tensors
from quantkit.graph.weight_store import return_freed_memory
from quantkit.output_noise.energies import NoiseTotals
from quantkit.values import Batch

if TYPE_CHECKING:
    from quantkit.values import Array

MeasuredBatch: TypeAlias = "tuple[Batch, Mapping[str, Array], int]"
"""A batch, the outputs of the reference, and the number of samples."""
KEPT = 64 << 20
"""Bytes of inputs and outputs that are kept for the next pass over the same feed."""
BLOCK = 256 << 20
"""Bytes of inputs and outputs that are held in memory at once."""


class ReferenceBlocks:
    """Runs a reference over batches, any number of times; what is less than `KEPT` bytes in all is kept instead.

    threads: of the reference. frugal: smaller blocks. ModelError if the reference has no float output.
    """

    def __init__(
        self, reference: Model, feed: Feed, open_session: SessionOpener, threads: int, *, frugal: bool
    ) -> None:
        self._reference, self._feed, self._threads = reference, feed, threads
        self._open_session, self._most = open_session, KEPT if frugal else BLOCK
        places = comparable_tensors(reference.proto.graph, reference.outputs)
        wanted = dict.fromkeys(chain(*places.values()))
        self._session: Session | None = open_session(reference, tuple(wanted), threads=threads)
        self.outputs = self._session.tensors
        """The tensors that are measured: the float outputs, or what a selection before them reads."""
        replaced = [name for name, tensors in places.items() if tensors != (name,)]
        selection = (
            f"outputs {', '.join(replaced)} hold selected values or their places (TopK, NMS, ArgMax): "
            f"measured instead is what the selection reads: {', '.join(self.outputs)}"
        )
        self.notes = (selection,) if replaced else ()
        if not self.outputs:
            raise ModelError(
                f"{reference.path} has no float output: noise cannot be measured",
                remedy="measure at a float tensor: cut the network behind it",
            )
        self._kept: tuple[list[MeasuredBatch], NoiseTotals] | None = None

    def _run_reference(self, feeds: Batch) -> Mapping[str, Array]:
        """Run the reference once; it is opened where it is not."""
        if self._session is None:
            self._session = self._open_session(self._reference, self.outputs, threads=self._threads)
        return self._session.runner()(feeds)

    def _closed(self, block: list[MeasuredBatch]) -> list[MeasuredBatch]:
        """Close the reference, with its weights and the memory of a run, before candidates run over a block."""
        self._session = None
        return_freed_memory()
        return block

    def over(
        self, feed: Feed, totals: NoiseTotals, look: Callable[[Mapping[str, Array]], None]
    ) -> Iterator[list[MeasuredBatch]]:
        """Yield lists of batches with the reference's outputs, each list as long as memory allows.

        totals: gets the samples, and which outputs hold NaN. look: called with the outputs of every batch that is run.
        """
        if self._kept is not None and feed is self._feed:
            block, known = self._kept
            totals.samples += known.samples
            totals.missing |= known.missing
            totals.defined |= known.defined
            yield block
            return
        block, size, blocks = [], 0, 0
        for portion in feed.portions():
            exact = dict(self._run_reference(portion.batch))
            look(exact)
            for name, values in exact.items():
                missing = np.isnan(values)
                totals.missing |= {name} if missing.any() else set()
                totals.defined |= set() if missing.all() else {name}
            totals.samples += portion.samples
            block.append((portion.batch, exact, portion.samples))
            size += sum(values.nbytes for values in (*portion.batch.values(), *exact.values()))
            if size >= self._most:
                yield self._closed(block)
                block, size, blocks = [], 0, blocks + 1
        if block and not blocks and size < KEPT and feed is self._feed:
            self._kept = block, NoiseTotals({}, totals.samples, set(totals.missing), set(totals.defined))
        if block:
            yield self._closed(block)
