"""The memory plan: how many samples run at once, in how many passes, on how many threads.

Of the machine, only the number of threads enters, and it does not affect the results. The slice affects the last bit of
a sum, and is therefore part of the run's identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from quantkit.data.batches import axes_of, batch_axis_of, take_samples
from quantkit.errors import UsageError
from quantkit.graph import Model, Watch
from quantkit.graph.shape_inference import shapes_for_inputs
from quantkit.values import Batch

CACHED_BYTES = 8 << 20
"""Bytes of activations of a slice that still fit into the caches of a CPU."""
GPU_RUNNERS = 2
"""Threads for a GPU: it computes the slice of one while the other counts on the host."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A frozen plan of a run.

    slice: samples at once, 0 for whole batches. passes: the watched tensors of each pass over the data. runners:
    threads. bytes: activations of a slice. batch_first: tensors whose axis 0 is the batch. axes: the batch axis of each
    input, as in `Portion`.
    """

    slice: int
    passes: tuple[tuple[str, ...], ...]
    runners: int
    bytes: int
    batch_first: frozenset[str] = frozenset()
    axes: Mapping[str, int | None] = field(default_factory=dict)


def plan_memory(
    model: Model,
    watch: Watch,
    first: Batch,
    samples: int,
    *,
    max_memory: int,
    workers: int,
    whole: bool,
    on_gpu: bool = False,
) -> MemoryPlan:
    """Return the plan for batches like `first`, which holds `samples` samples.

    whole: batches must not be sliced. on_gpu: slices are as large as memory allows, not the caches.
    UsageError where one tensor alone exceeds `max_memory`.
    """
    unit = samples if whole else 1
    axes = axes_of(model.inputs)
    one = shapes_for_inputs(model, watch.tensors, slice_shapes(first, samples, unit, axes))
    two = one if whole else shapes_for_inputs(model, watch.tensors, slice_shapes(first, samples, 2, axes))
    known = [prod(shape) for shape in one.values() if shape is not None]
    # A tensor of unknown size is assumed to be as large as the largest known one.
    guess = max(known, default=0)
    sizes = {name: 4 * (guess if shape is None else prod(shape)) for name, shape in one.items()}
    passes = group_by_size(sizes, max_memory)
    heaviest = max(sum(sizes[name] for name in group) for group in passes)
    room, workers = (max_memory // GPU_RUNNERS, GPU_RUNNERS) if on_gpu else (min(CACHED_BYTES, max_memory), workers)
    fitting = 1 if whole else max(1, room // max(heaviest, 1))
    if on_gpu:
        fitting = even_slice(fitting, samples)
    held = heaviest * fitting
    return MemoryPlan(
        0 if whole else fitting,
        passes,
        max(1, min(workers, max_memory // max(held, 1))),
        held,
        frozenset(name for name in one if starts_with_batch(one[name], two[name], samples if whole else None)),
        axes,
    )


def even_slice(most: int, samples: int) -> int:
    """Return a slice of at most `most` samples that divides a batch evenly, unless that were less than half of it.

    A GPU library plans a convolution again whenever the shape of its input changes, which costs more than to run it.
    """
    if most >= samples:
        return samples
    even = next(size for size in range(most, 0, -1) if samples % size == 0)
    return even if 2 * even >= most else most


def slice_shapes(batch: Batch, samples: int, count: int, axes: Mapping[str, int | None]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs for `count` samples, from a batch of `samples`."""
    found = {name: batch_axis_of(array, axes.get(name, 0), samples) for name, array in batch.items()}
    return {
        name: tuple(count if k == found[name] else size for k, size in enumerate(array.shape))
        for name, array in batch.items()
    }


def starts_with_batch(one: tuple[int, ...] | None, two: tuple[int, ...] | None, fixed: int | None) -> bool:
    """Return True if axis 0 of a tensor is the batch: it grows with it (from one sample to two), or has its length."""
    if not one or not two:
        return False
    return one[0] == fixed if fixed is not None else two[0] == 2 * one[0]


def group_by_size(sizes: Mapping[str, int], limit: int) -> tuple[tuple[str, ...], ...]:
    """Return the tensors in order, split into groups of at most `limit` bytes. UsageError."""
    result: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if size > limit:
            raise UsageError(
                f"tensor {name!r} alone takes {size:,} bytes, but --max-memory is {limit:,}",
                remedy=f"give at least --max-memory {-(-size // 1024)}K",
            )
        if held + size > limit and result[-1]:
            result.append([])
            held = 0
        result[-1].append(name)
        held += size
    return tuple(tuple(group) for group in result)


def slice_batch(
    batch: Batch, samples: int, size: int, axes: Mapping[str, int | None] | None = None
) -> list[tuple[Batch, int]]:
    """Return a batch in slices of at most `size` samples (0: whole); inputs without a batch axis are not sliced."""
    if size in (0, samples) or size > samples:
        return [(batch, samples)]
    found = {name: batch_axis_of(array, (axes or {}).get(name, 0), samples) for name, array in batch.items()}
    starts: Sequence[int] = range(0, samples, size)
    return [
        (
            {name: take_samples(array, found[name], slice(s, s + size)) for name, array in batch.items()},
            min(size, samples - s),
        )
        for s in starts
    ]
