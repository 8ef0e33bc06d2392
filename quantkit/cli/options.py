"""The options that several commands share. Each is declared here once, with one help text.

Options that belong together arrive in a command as one frozen value. A decorator adds them to the command:

    @options.layer_selection()
    def quantize(selection: LayerSelection, …)

A new option of a value is a field of its class and an entry in the table below the class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli.arguments.engine_options import level
from quantkit.cli.arguments.groups import Decorator, grouped, offered
from quantkit.cli.arguments.parsing import NUMBER, WHOLE, PlaceType, parse_algorithm
from quantkit.cli.arguments.quantized_type import nodes_of_type, quantized_type
from quantkit.cli.arguments.registry_option import MetricOption, ProviderOption, RepairOption, RuleOption
from quantkit.cli.arguments.scale_files import ScaleFiles
from quantkit.cli.terminal.console import Printing
from quantkit.rules import DEFAULT_RULE, WHY_DEFAULT_RULE

if TYPE_CHECKING:
    from quantkit.data import DataOptions

PATH = click.Path(path_type=Path)
PLACE = PlaceType(path_type=Path)

# ── single options ──────────────────────────────────────────────────────────────────────────────────────────────────

METHODS = "Calibration method: {rules}."
"""Completed by `RuleOption`."""
METRICS = "Metric: {metrics}; NAME@OUTPUT measures that output."
"""Completed by `MetricOption`."""
SHAPES = "Range of a dynamic input: batch sizes (image=1:8:32) or whole shapes."
BATCHES = "Batch sizes to time."
STREAMS = "Numbers of batches in flight at once."
PRECISIONS = "Precisions to build engines in."
REPAIRS = "Repairs that may be used: {repairs}; or none."
"""Completed by `RepairOption`."""

architectures = click.option(
    "--for",
    "architectures",
    metavar="ARCHITECTURE,…",
    help="GPU architectures: sm75, sm80, sm86, sm89, sm120, sm121, or all. Default: sm86,sm120.",
)
force = click.option("--force", is_flag=True, help="Replace existing files.")
shard = click.option(
    "--shard",
    metavar="INDEX/COUNT",
    help="Run one of COUNT parts of the data, 0/COUNT, 1/COUNT …; all of them merge to the result of one run.",
)
merge_shards = click.option(
    "--merge",
    metavar="DIR|URL",
    type=PLACE,
    help="Add up the shards that lie there, instead of running the models.",
)
html = click.option("--html", metavar="FILE.html", type=PATH, help="Write a report as one HTML file.")
provider = click.option(
    "--provider",
    cls=ProviderOption,
    default="cpu",
    show_default=True,
    help="Execution provider of onnxruntime. cuda: float32 without TF32 on the first GPU, cuda:1 on the second.",
)
device = click.option("--device", metavar="N", type=WHOLE, default=0, show_default=True, help="Index of the GPU.")
allow_code = click.option("--allow-code", is_flag=True, help="Run the code that a version-compatible engine contains.")
labels = click.option(
    "--labels",
    metavar="FILE|DIR",
    type=PATH,
    help="Labels of the evaluation data: file,label per line (.csv, .tsv, .txt), an array (.npz, .npy), COCO's .json, "
    "or a folder of YOLO's .txt, VOC's .xml or class maps. Default: class folders, or labels found with the data.",
)
classes = click.option(
    "--classes",
    metavar="FILE",
    type=PATH,
    help="Class names in the order of the model's outputs: one per line, .json or .csv. Default: the class folders, "
    "sorted.",
)
exclude = click.option(
    "--exclude",
    metavar="NODE|PATTERN|OPERATOR",
    multiple=True,
    help="Keep these nodes out of INT8: names, patterns or operators. Can be repeated; @FILE reads one from each line.",
)
min_coverage = click.option(
    "--min-coverage",
    metavar="FRACTION",
    type=NUMBER,
    default=0.9,
    show_default=True,
    help="Minimum fraction of the model's float tensors for which a calibration table must have a scale, 0 … 1.",
)
tensorrt_version = click.option(
    "--tensorrt-version",
    metavar="X.Y.Z",
    help="TensorRT version that the result is for. Default: the installed library's version, else 10.3.0. TensorRT "
    "ignores calibration tables made for another version.",
)
table_argument = click.argument("table", metavar="TABLE", type=PATH)


def data(default: str = "", *, required: bool = False) -> Decorator:
    """Return the option --data. default: the data without it, in words."""
    return click.option(
        "--data",
        metavar="PATH",
        required=required,
        help="Samples: a folder of images, a data set (data.yaml, COCO's .json), .tar, .parquet, .arrow or video "
        "files, a .npy or .npz file, a folder of .npz batches, the URL of any of them (s3://, gs://, hf://, https://), "
        "or module:callable." + (f" Default: {default}." if default else ""),
    )


def max_drop(*, required: bool = False) -> Decorator:
    """Return the option --max-drop."""
    return click.option(
        "--max-drop",
        metavar="POINTS",
        type=NUMBER,
        required=required,
        help="Largest acceptable loss of the first metric, in percentage points for a metric between 0 and 1, else in "
        "the metric's unit. If a model loses more, or if the figures are in doubt, the exit code is 3.",
    )


def metric(otherwise: str = "") -> Decorator:
    """Return the option --metric. otherwise: what is measured if the default metric is impossible."""
    text = f"{METRICS} Can be repeated; the first one decides. Default: {{default}}{otherwise}."
    return click.option("--metric", cls=MetricOption, metavar="NAME", multiple=True, help=text)


def stats(default: str = "MODEL.stats.safetensors beside the model, else the table MODEL.calib") -> Decorator:
    """Return the option --stats. default: where statistics come from without it, in words."""
    return click.option("--stats", metavar="PATH", type=PATH, help=f"Statistics file. Default: {default}.")


def repair(default: str) -> Decorator:
    """Return the option --repair. default: the repairs without it, in words."""
    return click.option("--repair", cls=RepairOption, metavar="NAME,NAME…", help=f"{REPAIRS} Default: {default}.")


def engine_table(default: str) -> Decorator:
    """Return the option --table of commands that build engines. default: the table without it, in words."""
    return click.option(
        "--table", metavar="PATH", type=PATH, help=f"Calibration table for the scales of INT8. Default: {default}."
    )


def rule(default: str | None = None, *, text: str = "") -> Decorator:
    """Return the option --rule. default: None where a file may name the rule, and DEFAULT_RULE holds if none does."""
    described = " ".join(filter(None, (METHODS, text, WHY_DEFAULT_RULE)))
    return click.option("--rule", cls=RuleOption, metavar="RULE", default=default, help=described)


def rules(text: str, *, default: str | None = None) -> Decorator:
    """Return the option --rule where it takes several. text: what several are for, in a sentence."""
    why = f" {WHY_DEFAULT_RULE}" if default else ""
    return click.option("--rule", cls=RuleOption, metavar="RULE,RULE…", default=default, help=f"{METHODS} {text}{why}")


# ── options that arrive as one value ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class LayerSelection:
    """A frozen value of the options that choose what is quantized and by which scales: of quantize, layers and tune."""

    policy: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    type: str | None = None
    int8: tuple[str, ...] | None = None
    fp8: tuple[str, ...] | None = None
    rule: str | None = None
    min_coverage: float | None = None

    def keywords(self) -> dict[str, Any]:
        """Return them by the names they have in `QuantizeOptions` and its like, @FILE expanded. UsageError."""
        from quantkit.sensitivity.exclusion_file import expand_name_files

        given = offered(self)
        lists = given.keys() & {"include", "exclude", "int8", "fp8"}
        return given | {name: expand_name_files(given[name]) for name in lists}


LAYER_SELECTION: Mapping[str, Decorator] = {
    "rule": rule(DEFAULT_RULE),
    "policy": click.option(
        "--policy",
        metavar="tensorrt|conv-only|all",
        default="tensorrt",
        show_default=True,
        help="Layers to quantize: those that TensorRT runs faster in INT8 (tensorrt), convolutions only (conv-only), "
        "or attention, gates and activations too (all).",
    ),
    "include": click.option(
        "--include",
        metavar="NODE|PATTERN|OPERATOR",
        multiple=True,
        help="Quantize these nodes although the policy keeps them in float. Can be repeated; @FILE reads one from each "
        "line.",
    ),
    "exclude": exclude,
    "type": quantized_type,
    "int8": nodes_of_type("int8"),
    "fp8": nodes_of_type("fp8"),
    "min_coverage": min_coverage,
}


def layer_selection(*, without: Collection[str] = (), rule: Decorator = LAYER_SELECTION["rule"]) -> Decorator:
    """Return a decorator: the command gets `selection`. without: options that it does not offer."""
    chosen = {field: option for field, option in {**LAYER_SELECTION, "rule": rule}.items() if field not in without}
    return grouped("selection", LayerSelection, chosen)


SCALE_FILES: Mapping[str, Decorator] = {
    "stats": stats(),
    "table": click.option(
        "--table", metavar="PATH", type=PATH, help="Calibration table whose scales are used unchanged."
    ),
}
scale_files = grouped("scales", ScaleFiles, SCALE_FILES)


@dataclass(frozen=True, slots=True)
class DataChoice:
    """A frozen value of the options that name samples and say how they are read. None: not offered, or the default."""

    data: str | None
    preprocess: str | None
    limit: int | None = None
    skip_corrupt: bool | None = None
    batch_size: int | None = None
    threads: int | None = None
    shuffle: bool | None = None
    seed: int | None = None
    frame_step: int | None = None

    def reading(self) -> DataOptions:
        """Return how the samples are read. UsageError."""
        from quantkit.data import DataOptions

        about = offered(self)
        return DataOptions(**{name: about[name] for name in about.keys() - {"data", "preprocess"}})


DATA_CHOICE: Mapping[str, Decorator] = {
    "preprocess": click.option(
        "--preprocess",
        metavar="PRESET|FILE.toml",
        help="Preprocessing: imagenet, imagenet-caffe, cifar10, yolo, unit, raw, or a TOML file. Default: "
        "preprocess.toml beside the model, else the model's metadata, else a guess with a warning: raw for inputs of "
        "integers, else unit. Arrays: raw.",
    ),
    "shuffle": click.option("--shuffle", is_flag=True, help="Shuffle the samples."),
    "seed": click.option("--seed", metavar="N", type=WHOLE, default=0, show_default=True, help="Seed of --shuffle."),
    "batch_size": click.option(
        "--batch-size",
        metavar="N",
        type=WHOLE,
        help="Samples per batch. Default: the model's batch size if it is fixed, else about 32.",
    ),
    "skip_corrupt": click.option(
        "--skip-corrupt", is_flag=True, default=None, help="Leave out images that cannot be read, and count them."
    ),
    "frame_step": click.option(
        "--frame-step", metavar="N", type=WHOLE, help="Take every N-th frame of a video. Default: 1, every frame."
    ),
    "threads": click.option(
        "--threads", metavar="N", type=WHOLE, help="Number of threads. Default: one per core, at most 8."
    ),
}


def data_choice(*extra: str, limit: str = "512", default_limit: int | None = None, required: bool = False) -> Decorator:
    """Return a decorator: the command gets `samples`.

    extra: fields besides the five that every command offers. limit: the default of --limit in words, default_limit as
    a number if the command has one of its own.
    """
    most = click.option(
        "--limit",
        metavar="N",
        type=WHOLE,
        default=default_limit,
        show_default=default_limit is not None,
        help="Maximum number of samples, spread evenly over the sorted list."
        + ("" if default_limit is not None else f" Default: {limit}."),
    )
    offered_fields = {"preprocess", "skip_corrupt", "frame_step", *extra}
    rest = {field: option for field, option in DATA_CHOICE.items() if field in offered_fields}
    preprocess = rest.pop("preprocess")
    return grouped(
        "samples", DataChoice, {"data": data(required=required), "preprocess": preprocess, "limit": most, **rest}
    )


@dataclass(frozen=True, slots=True)
class HeaderChoice:
    """A frozen value of the options that decide a calibration table's header."""

    tensorrt_version: str | None
    algorithm: str | None

    def keywords(self) -> dict[str, Any]:
        """Return them by the names they have in `CalibrateOptions` and its like. UsageError."""
        return {"tensorrt_version": self.tensorrt_version, "algorithm": parse_algorithm(self.algorithm)}


def header_choice(*, default_algorithm: str | None = None) -> Decorator:
    """Return a decorator: the command gets `header`. default_algorithm: else the calibration method decides."""
    algorithm = click.option(
        "--algorithm",
        metavar="NAME",
        default=default_algorithm,
        show_default=default_algorithm is not None,
        help="Algorithm named in the table's header: EntropyCalibration2, MinMaxCalibration, EntropyCalibration or "
        "LegacyCalibration." + ("" if default_algorithm else " Default: that of the calibration method."),
    )
    return grouped("header", HeaderChoice, {"tensorrt_version": tensorrt_version, "algorithm": algorithm})


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """A frozen value of the options for building engines that build and bench share."""

    shapes: tuple[str, ...]
    level: int
    no_fp16: bool
    retarget: bool
    device: int
    force: bool

    def keywords(self) -> dict[str, Any]:
        """Return them by the names they have in `BuildOptions`."""
        return {name: setting for name, setting in offered(self).items() if name != "no_fp16"} | {
            "fp16": not self.no_fp16
        }


def shapes(default: str) -> Decorator:
    """Return the option --shapes. default: the range without it, in words."""
    return click.option("--shapes", metavar="INPUT=MIN:OPT:MAX", multiple=True, help=f"{SHAPES} Default: {default}.")


def engine_choice(default_shapes: str) -> Decorator:
    """Return a decorator: the command gets `engine`. default_shapes: the range of a dynamic input, in words."""
    declared: Mapping[str, Decorator] = {
        "shapes": shapes(default_shapes),
        "level": level,
        "no_fp16": click.option("--no-fp16", is_flag=True, help="Do not let layers of an INT8 engine run in FP16."),
        "retarget": click.option(
            "--retarget", is_flag=True, help="Accept a calibration table made for another TensorRT version."
        ),
        "device": device,
        "force": force,
    }
    return grouped("engine", EngineChoice, declared)


PRINTING: Mapping[str, Decorator] = {
    "quiet": click.option("--quiet", "-q", is_flag=True, help="Print no progress and no summary, only warnings."),
    "as_json": click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    "as_markdown": click.option(
        "--markdown", "as_markdown", is_flag=True, help="Print the result as Markdown, to paste into an issue."
    ),
}


def printing_options(*fields: str) -> Decorator:
    """Return a decorator: the command gets `printing`. fields: those that it offers."""
    return grouped("printing", Printing, {field: PRINTING[field] for field in fields})


printing = printing_options("quiet", "as_json")
printing_loudly = printing_options("as_json")
"""For commands without --quiet."""
printing_tables = printing_options("quiet", "as_json", "as_markdown")
"""For commands whose result notebooks display, which --markdown prints."""
printing_tables_loudly = printing_options("as_json", "as_markdown")
