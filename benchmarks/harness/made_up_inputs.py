"""Made-up inputs for any ONNX network: its own test data where that lies beside it, else random numbers.

Random numbers show whether the tools get through; they say nothing about the accuracy of a network on real data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

BATCHES, SAMPLES = 4, 4
SIZES = (16, 8, 32, 64, 224, 512, 1)
"""Sizes of dynamic dimensions that are tried, one after the other."""
HIGHEST = (10, 2, 1)
"""Integers below these are tried, because indices have to lie inside a table of unknown length."""

Batch = Mapping[str, NDArray[Any]]


def fed_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a network that are not weights."""
    weights = {w.name for w in model.graph.initializer} | {w.values.name for w in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in weights]


def stored_batch(path: Path, inputs: Sequence[onnx.ValueInfoProto]) -> Batch | None:
    """The network's own test data, in ONNX's layout `test_data_set_0/input_N.pb`; None where it is no plain tensors."""
    batch: dict[str, NDArray[Any]] = {}
    for number, value in enumerate(inputs):
        file = path.parent / "test_data_set_0" / f"input_{number}.pb"
        if not file.is_file() or not value.type.HasField("tensor_type"):
            return None
        batch[value.name] = numpy_helper.to_array(onnx.load_tensor(str(file)))
    return batch


def random_batch(inputs: Sequence[onnx.ValueInfoProto], size: int, highest: int, seed: int) -> Batch | None:
    """Random values of every input's type and shape; None where an input is no tensor."""
    random = np.random.default_rng(seed)
    batch: dict[str, NDArray[Any]] = {}
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            return None
        tensor = value.type.tensor_type
        batched = [re.fullmatch("n|b|bs|.*batch.*", d.dim_param, re.IGNORECASE) for d in tensor.shape.dim]
        first = next((k for k, match in enumerate(batched) if match), 0)
        shape = [max(d.dim_value, 0) or (SAMPLES if k == first else size) for k, d in enumerate(tensor.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        rate = not shape and value.name in ("sr", "sample_rate") and dtype.kind == "i"
        batch[value.name] = np.array(16000, dtype) if rate else values_of(dtype, shape, highest, random)
    return batch


def values_of(dtype: np.dtype[Any], shape: Sequence[int], highest: int, random: np.random.Generator) -> NDArray[Any]:
    """Normal floats, images of bytes, integers below `highest`, booleans, short texts."""
    if dtype == np.uint8:
        return random.integers(0, 256, shape).astype(dtype)
    if dtype.kind in "iu":
        return random.integers(0, highest, shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "OUS":
        return np.full(shape, "text", dtype=object)
    return random.normal(size=shape).astype(dtype)


def possible_batches(path: Path, inputs: Sequence[onnx.ValueInfoProto]) -> Iterator[tuple[str, list[Batch]]]:
    """Batches to try, with a word on where they are from."""
    stored = stored_batch(path, inputs)
    if stored is not None:
        yield "stored", [stored]
    for size in SIZES:
        for highest in HIGHEST:
            batches = [random_batch(inputs, size, highest, seed) for seed in range(BATCHES)]
            yield "random", [batch for batch in batches if batch is not None]


def write_batches(batches: Sequence[Batch], folder: Path) -> None:
    """A folder of `.npz` batches, as `--data` takes it."""
    folder.mkdir()
    for number, batch in enumerate(batches):
        np.savez(folder / f"{number}.npz", **batch)  # type: ignore[arg-type]
