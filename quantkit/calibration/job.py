"""A calibration job: everything that is known before any data is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.artifact import Digest, refuse_missing_folder
from quantkit.backends.session import TENSORRT
from quantkit.calibration.options import CalibrateOptions
from quantkit.calibration.reuse import TableRequest
from quantkit.calibration.tables import header_for, table_paths
from quantkit.data import DataIdentity, Feed, open_data
from quantkit.data.opening import refuse_no_inputs
from quantkit.data.pictures.find import data_name
from quantkit.data.preprocess_choice import AnyPreprocess, PreprocessChoice, choose_spec
from quantkit.errors import ModelError
from quantkit.graph import AnyModel, Model, Watch, load_model, watched_tensors
from quantkit.graph.model import DTYPES
from quantkit.graph.node_selection import select_nodes
from quantkit.histogram import HistogramMode
from quantkit.paths import is_folder
from quantkit.qdq.reader import has_qdq
from quantkit.qdq.removal import describe_way_back
from quantkit.rules import Rule, as_rules
from quantkit.table import Header
from quantkit.tensorrt_version import TargetVersion, target_version

FEEDABLE = frozenset(DTYPES.values()) - {"bfloat16"}


@dataclass(frozen=True, slots=True)
class CalibrationJob:
    """A frozen value with everything that is known before any data is read."""

    model: Model
    watch: Watch
    rules: tuple[Rule, ...]
    headers: Mapping[str, Header]
    target: TargetVersion
    source: str
    feed: Feed
    spec: PreprocessChoice
    output: Path | None
    options: CalibrateOptions
    excluded: frozenset[str] = frozenset()
    """Nodes that stay float."""
    may_replace: Callable[[Path], bool] = lambda _: True
    """Whether a file that lies at an output when the work is done may be replaced."""
    first_ranges: Mapping[str, float] = field(default_factory=dict)
    """In `tensorrt` mode, the ranges of histograms that these are added to: their grids are taken."""

    @property
    def backend(self) -> str:
        """The part of the backend that affects the numbers: `tensorrt`, `onnxruntime cpu`."""
        options = self.options
        return TENSORRT if options.backend == TENSORRT else f"{options.backend} {options.provider}"

    def request(self, identity: DataIdentity) -> TableRequest:
        """Return everything that the tables depend on."""
        options = self.options
        ordered = options.histogram is HistogramMode.TENSORRT
        parts = {
            "model": Digest(self.model.sha256),
            "data": Digest(identity.content),
            "samples": identity.samples,
            "order of the data": Digest(identity.order) if ordered else None,
            "batch size": self.feed.batch_size if ordered else None,
            "preprocessing": self.spec.document,
            "histogram": options.histogram.value,
            "max memory": None if options.backend == TENSORRT else options.memory,
            "backend": self.backend,
            "excluded layers": sorted(self.excluded),
        }
        return TableRequest(parts, self.headers)

    def paths(self) -> dict[Path, Rule]:
        """Return the path of every rule's table; none without an output."""
        return table_paths(self.output, self.rules) if self.output else {}


def prepare_job(
    model: AnyModel,
    data: Any,
    rules: str | Rule | Sequence[Rule],
    preprocess: AnyPreprocess,
    output: str | os.PathLike[str] | None,
    options: CalibrateOptions,
) -> CalibrationJob:
    """Check the arguments, read the model, and open the data. Raises what `calibrate` raises."""
    chosen_rules = as_rules(rules)
    target = target_version(options.tensorrt_version)
    headers = {r.name: header_for(r, target.number, options.algorithm) for r in chosen_rules}
    loaded = load_model(model)
    refuse_qdq(loaded)
    for i in loaded.inputs:
        if i.dtype not in FEEDABLE:
            raise ModelError(
                f"{loaded.path}: input {i.describe()} cannot be fed",
                remedy="remove that input, or change it to a number type",
            )
    refuse_no_inputs(loaded.inputs)
    refuse_unshaped(loaded)
    watch = watched_tensors(loaded)
    if not watch.tensors:
        raise ModelError(f"{loaded.path} has no float tensors", remedy="give a float32 or float16 network")
    excluded = select_nodes(options.exclude, loaded, "--exclude")
    spec = choose_spec(preprocess, loaded, data)
    feed, applied = open_data(data, loaded.inputs, spec.spec, options.data)
    place = None if output is None else output_path(Path(output), loaded.path)
    return CalibrationJob(
        loaded,
        watch,
        chosen_rules,
        headers,
        target,
        data_name(data),
        feed,
        spec.with_applied(applied),
        place,
        options,
        excluded,
    )


def refuse_qdq(model: Model) -> None:
    """Raise ModelError where a network has Q/DQ: it holds its own scales, and TensorRT ignores a table beside them."""
    if has_qdq(model):
        raise ModelError(
            f"{model.path} already has Q/DQ",
            remedy=f"calibrate the float network; {describe_way_back(model)}",
        )


def refuse_unshaped(model: Model) -> None:
    """Raise ModelError where an input does not even specify its number of dimensions."""
    names = {i.name for i in model.inputs}
    for number, value in enumerate(model.proto.graph.input):
        if value.name in names and not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"{model.path}: input {value.name!r} has no shape",
                remedy=f"export it with a shape, or set it in the file: model.graph.input[{number}].type.CopyFrom("
                f"onnx.helper.make_tensor_type_proto({value.type.tensor_type.elem_type}, ['N', 3, 224, 224]))",
            )


def output_path(output: Path, model: Path) -> Path:
    """Return the path of the first table: `output`, or a file in it if it is a folder. OutputError."""
    path = output / f"{model.stem}.calib" if is_folder(output) else output
    refuse_missing_folder(path)
    return path
