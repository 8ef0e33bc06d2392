"""Sources of a map beside the model: statistics, the measurement of layers, an engine, a compiled network.

Every source has to be of the network that is drawn: its record names the sha256 of the model, or of the float model
that the Q/DQ model was made from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quantkit.backends.engine_record import is_engine, read_engine_record
from quantkit.backends.tensorrt_rtx.record import COMPILED_RECORD, CompiledRecord
from quantkit.document import DocumentType
from quantkit.errors import BackendError, QuantkitError, StaleError, UsageError
from quantkit.graph.model import Model
from quantkit.mapping.kernels import KernelFacts, compiled_kernels, engine_kernels, read_profile
from quantkit.paths import AnyPath, beside
from quantkit.provenance import typed_record
from quantkit.quantization.record import quantization_record
from quantkit.rules import Rule
from quantkit.sensitivity.result import Sensitivity
from quantkit.statistics import Statistics, given_statistics


@dataclass(frozen=True, slots=True)
class MapFiles:
    """The files and values that a map is made of, each of which may be missing."""

    statistics: AnyPath | Statistics | None = None
    layers: AnyPath | Sensitivity | None = None
    engine: AnyPath | None = None
    compiled: AnyPath | CompiledRecord | None = None
    profile: AnyPath | None = None

    @property
    def paths(self) -> tuple[AnyPath, ...]:
        """Those that are paths."""
        every = (self.statistics, self.layers, self.engine, self.compiled, self.profile)
        return tuple(one for one in every if one is not None and not isinstance(one, VALUES))


VALUES = (Statistics, Sensitivity, CompiledRecord)


@dataclass(frozen=True, slots=True)
class LayerRow:
    """The figures of a layer in the result of `layers`, as far as a map shows them; None for no noise, or unknown."""

    node: str
    kept: str = ""
    alone_db: float | None = None
    gain_db: float | None = None


@dataclass(frozen=True, slots=True)
class TensorRow:
    """The figures of a tensor in the result of `layers`."""

    name: str
    node: str
    weight: bool
    scale: float | None = None
    sqnr_db: float | None = None
    clipped: float | None = None
    levels: int | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class LayersDocument:
    """The part of what `quantkit layers --json` prints that a map shows."""

    layers: tuple[LayerRow, ...]
    tensors: tuple[TensorRow, ...]
    provenance: Mapping[str, Any]


LAYERS_DOCUMENT = DocumentType[LayersDocument](
    LayersDocument, "a result of quantkit layers", QuantkitError,
    "write one: quantkit layers MODEL --against MODEL.int8.onnx --data PATH --json", nonfinite=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MapSources:
    """Content of the sources. rule: chooses scales where the network has no Q/DQ. described: each source in words."""

    statistics: Statistics | None = None
    rule: Rule | None = None
    layers: Mapping[str, LayerRow] = field(default_factory=dict)
    tensor_errors: Mapping[str, TensorRow] = field(default_factory=dict)
    weight_errors: Mapping[str, TensorRow] = field(default_factory=dict)
    kernels: Mapping[str, KernelFacts] = field(default_factory=dict)
    described: tuple[str, ...] = ()


def read_sources(files: MapFiles, models: Sequence[Model], rule: Rule | None) -> MapSources:
    """Read all sources of a map. StaleError for one of another network than `models`; the errors of their readers."""
    known = identities(models)
    where = models[0].path
    found = MapSources(rule=rule)
    for add in (add_statistics, add_layers, add_kernels):
        found = add(found, files, known, where)
    return found


def identities(models: Sequence[Model]) -> frozenset[str]:
    """Return the sha256 of models, and of the float models that they were made from by quantkit."""
    records = [quantization_record(model.metadata, model.path.name) for model in models]
    return frozenset({model.sha256 for model in models} | {record.model for record in records if record}) - {""}


def refuse_foreign_source(source: str, digest: str, known: Collection[str], where: Path) -> None:
    """Raise StaleError if a source names a network that is not drawn."""
    if digest not in known:
        raise StaleError(
            f"{source} belongs to another network than {where}",
            remedy="draw the model that it was made of; for a Q/DQ model of another tool, the float model",
        )


def add_statistics(found: MapSources, files: MapFiles, known: Collection[str], where: Path) -> MapSources:
    """Add statistics."""
    given = files.statistics
    if given is None:
        return found
    name = "statistics" if isinstance(given, Statistics) else f"statistics {Path(given).name}"
    statistics = given_statistics(given)
    refuse_foreign_source(name, statistics.origin.model, known, where)
    text = f"{name}: {statistics.origin.samples:,} samples"
    return replace(found, statistics=statistics, described=(*found.described, text))


def add_layers(found: MapSources, files: MapFiles, known: Collection[str], where: Path) -> MapSources:
    """Add the measurement of layers."""
    given = files.layers
    if given is None:
        return found
    name = "layers" if isinstance(given, Sensitivity) else f"layers {Path(given).name}"
    document = layers_document_of(given)
    digest = document.provenance.get("model")
    if not isinstance(digest, str):
        raise QuantkitError(f"{name} does not say which model it is of", remedy=LAYERS_DOCUMENT.remedy)
    refuse_foreign_source(name, digest, known, where)
    return replace(
        found,
        layers={row.node: row for row in document.layers},
        tensor_errors={row.name: row for row in document.tensors if not row.weight},
        weight_errors={row.node: row for row in document.tensors if row.weight},
        described=(*found.described, f"{name}: {len(document.layers):,} layers"),
    )


def layers_document_of(given: AnyPath | Sensitivity) -> LayersDocument:
    """Return the result of `layers`, from a value or from a file."""
    if not isinstance(given, Sensitivity):
        return LAYERS_DOCUMENT.read(given)
    rows = tuple(LayerRow(x.node, x.kept, x.alone_db, x.gain_db) for x in given.layers)
    tensors = tuple(
        TensorRow(x.name, x.node, x.weight, x.scale, x.sqnr_db, x.clipped, x.levels, x.estimated) for x in given.tensors
    )
    return LayersDocument(rows, tensors, given.provenance)


def add_kernels(found: MapSources, files: MapFiles, known: Collection[str], where: Path) -> MapSources:
    """Add the layers of an engine with their times, or the kernels of a compiled network."""
    if files.engine is not None and files.compiled is not None:
        raise UsageError(
            "an engine and a compiled network both say where nodes run",
            remedy="draw one of them, and give the other with --against",
        )
    if files.profile is not None and files.engine is None:
        raise UsageError("a profile has the times of an engine's layers", remedy="give the engine too: --engine")
    if files.engine is not None:
        path = engine_of(Path(files.engine))
        record = read_engine_record(path)
        if record is None:
            raise BackendError(
                f"{path} has no record beside it, which lists its layers",
                remedy="build it with quantkit build, which writes x.engine.json",
            )
        refuse_foreign_source(path.name, record.model.sha256, known, where)
        times = {} if files.profile is None else read_profile(str(files.profile))
        said = f"engine {path.name}: TensorRT {record.tensorrt}, {record.gpu}"
        if times and not times.keys() & {layer.name for layer in record.layers}:
            raise StaleError(
                f"{files.profile} has none of the layers of {path.name}", remedy="profile this engine with trtexec"
            )
        kernels = engine_kernels(record, times, f"TensorRT {record.tensorrt}")
        return replace(found, kernels=kernels, described=(*found.described, said))
    if files.compiled is None:
        return found
    name = "compiled network" if isinstance(files.compiled, CompiledRecord) else Path(files.compiled).name
    compiled = compiled_record_of(files.compiled)
    refuse_foreign_source(name, compiled.model.sha256, known, where)
    if not compiled.networks:
        raise BackendError(f"{name} has no compiled network in it", remedy=COMPILED_RECORD.remedy)
    network = compiled.networks[0]
    source = f"TensorRT-RTX {network.version}"
    said = f"{name}: {source} for {network.architecture}"
    return replace(found, kernels=compiled_kernels(network, source), described=(*found.described, said))


def compiled_record_of(given: AnyPath | CompiledRecord) -> CompiledRecord:
    """Return the record of a compiled network, from a value or from a file."""
    if isinstance(given, CompiledRecord):
        return given
    return typed_record(COMPILED_RECORD, COMPILED_RECORD.read_untyped(given), str(given))


def engine_of(path: Path) -> Path:
    """Return the path of an engine for that of the engine or of its record."""
    return beside(path, path.name.removesuffix(".json")) if path.suffix == ".json" else path


JSON_FILE = DocumentType[Any](
    Any, "a file that a map can show", QuantkitError,
    "give a model, statistics, an engine, a record of quantkit compile, or what quantkit layers --json prints",
    nonfinite=True,
)  # fmt: skip


def sort_files(paths: Sequence[AnyPath]) -> tuple[Path | None, MapFiles]:
    """Return the model and the sources among files, by their names and content. UsageError for two of a kind."""
    kinds: dict[str, Path] = {}
    for given in paths:
        path = Path(given)
        kind = kind_of_file(path)
        if kind in kinds:
            raise UsageError(f"{kinds[kind]} and {path} are both the {kind}", remedy="give one of them")
        kinds[kind] = path
    return kinds.pop("model", None), MapFiles(**kinds)


def kind_of_file(path: Path) -> str:
    """Return which source a file is: model, statistics, engine, compiled, layers or profile. QuantkitError."""
    if path.suffix == ".safetensors":
        return "statistics"
    if is_engine(engine_of(path)):
        return "engine"
    if path.suffix != ".json":
        return "model"
    document = JSON_FILE.read_untyped(path)
    if isinstance(document, list):
        return "profile"
    keys = document.keys() if isinstance(document, dict) else ()
    for kind, wanted in (("compiled", {"networks", "model"}), ("layers", {"layers", "tensors", "provenance"})):
        if wanted <= set(keys):
            return kind
    raise QuantkitError(f"{path} is not {JSON_FILE.name}", remedy=JSON_FILE.remedy)
