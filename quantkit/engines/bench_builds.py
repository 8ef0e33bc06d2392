"""The engines that `bench` times: one of a model in every precision, and that which a tuning chose."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from quantkit.artifact import canonical_json, sha256_of, text_bytes
from quantkit.backends.tensorrt.shapes import dynamic_axes
from quantkit.engines.build import build
from quantkit.engines.table_scales import find_table_scales
from quantkit.errors import BackendError, TableError
from quantkit.graph import Model
from quantkit.qdq.reader import has_qdq

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.options import BuildOptions
    from quantkit.engines.built_engine import BuiltEngine


@dataclass(frozen=True, slots=True)
class EngineSources:
    """The sources of a model's engines, and the folder for them, as `build` takes them."""

    table: str | os.PathLike[str] | None = None
    tuned: str | os.PathLike[str] | None = None
    output: str | os.PathLike[str] | None = None


def machine_name(device: int) -> str:
    """Return GPU and library, for example `NVIDIA H200, TensorRT 8.6.0`."""
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import detect_features, tensorrt

    return f"{open_device(device).name}, TensorRT {detect_features(tensorrt()).version}"


def build_every_precision(
    model: Model,
    precisions: Sequence[str],
    base: BuildOptions,
    sources: EngineSources,
    say: Callable[[str], None],
) -> tuple[list[BuiltEngine], list[str]]:
    """Build the engines of one model, reusing those that exist; return them with notes."""
    from quantkit.backends.tensorrt.options import Precision

    table, output = sources.table, sources.output
    notes: list[str] = []
    built: list[BuiltEngine] = []
    for name in precisions:
        chosen = replace(base, precision=Precision.named(name))
        if has_qdq(model) and not chosen.int8:
            continue
        if (
            chosen.precision is Precision.INT8
            and not has_qdq(model)
            and find_table_scales(model, chosen, table) is None
        ):
            notes.append(f"no INT8 engine of {model.path.name}: there is no calibration table (run quantkit calibrate)")
            continue
        try:
            made = build(
                model.path,
                options=chosen,
                table=table if chosen.int8 else None,
                output=output,
                phase=partial(prefix_phase, say, name),
                name=engine_name(model, chosen, machine_name(base.device)),
            )
        except (BackendError, TableError) as error:
            notes.append(f"no {name} engine: {error.summary}")
            continue
        built.append(made)
        notes += [f"{name}: {text}" for text in made.warnings]
    if sources.tuned is not None:
        made = build_tuned(model, base, sources, say)
        built.append(made)
        notes += [f"tuned: {text}" for text in made.warnings]
    return built, notes


def build_tuned(model: Model, base: BuildOptions, sources: EngineSources, say: Callable[[str], None]) -> BuiltEngine:
    """Build the engine that a tuning chose. Raises what `build` raises."""
    name = engine_name(model, base, machine_name(base.device)).replace(f".{base.precision.value}.", ".tuned.")
    return build(
        model.path,
        options=base,
        tuned=sources.tuned,
        output=sources.output or model.path.parent,
        phase=partial(prefix_phase, say, "tuned"),
        name=name,
    )


def prefix_phase(say: Callable[[str], None], name: str, text: str) -> None:
    """Pass on a progress message with a prefix."""
    say(f"{name}: {text}")


def engine_name(model: Model, options: BuildOptions, machine: str) -> str:
    """Return a name that is unique to options, shapes, GPU and TensorRT, so that no other engine is replaced."""
    about = canonical_json([options.document(), list(options.shapes), machine])
    return f"{model.path.stem}.{options.precision.value}.{sha256_of(text_bytes(about))[:8]}.bench.engine"


def shapes_for_batches(model: Model, batches: Sequence[int]) -> tuple[str, ...]:
    """Return ranges that cover all batch sizes, optimized for the largest, of inputs dynamic in the batch alone."""
    return tuple(
        f"{i.name}={min(batches)}:{max(batches)}:{max(batches)}" for i in model.inputs if dynamic_axes(i) == [0]
    )
