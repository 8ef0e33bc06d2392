"""`quantkit quantize`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from quantkit.cli import options
from quantkit.cli.console import note, print_fields, print_json
from quantkit.errors import UsageError

if TYPE_CHECKING:
    from quantkit.quantization.quantize import Quantization

SHOWN = 20


@click.command()
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.stats
@click.option("--table", metavar="PATH", type=options.PATH, help="Take the scales of a calibration table as they are.")
@click.option("--data", metavar="PATH", help="Images, arrays or module:callable: allows repairs that run the network.")
@options.preprocess
@click.option("--limit", metavar="N", type=int, help="Samples of the data at most. Default: 512.")
@options.skip_corrupt
@click.option(
    "--repair",
    metavar="NAME,NAME…",
    help="equalize, smooth, round (they need --data), bias; or none. Default: all that is possible.",
)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    help="The Q/DQ model. Default: MODEL.int8.onnx beside the model.",
)
@click.option(
    "--rule",
    metavar="RULE",
    default="mse",
    show_default=True,
    help="How scales come from statistics: mse, entropy, minmax, percentile:99.99; best chooses for every tensor.",
)
@click.option(
    "--policy",
    metavar="tensorrt|conv-only|all",
    default="tensorrt",
    show_default=True,
    help="What is quantized: what TensorRT gains by, convolutions only, or attention, gates and activations too.",
)
@click.option(
    "--exclude",
    metavar="NODE|PATTERN|OPERATOR",
    multiple=True,
    help="Keep nodes float; several times. @FILE takes one from each line.",
)
@click.option(
    "--include", metavar="NODE|PATTERN|OPERATOR", multiple=True, help="Quantize nodes that the policy keeps float."
)
@click.option(
    "--weights",
    metavar="float|int8",
    help="How weights stand in the file. Default: int8 for TensorRT 10 and newer, float before.",
)
@click.option(
    "--fp16", is_flag=True, help="The rest of the network in FP16, for TensorRT 11, which has no flag for it."
)
@options.min_coverage
@click.option(
    "--tensorrt-version",
    metavar="X.Y.Z",
    help="TensorRT that the model is for. Default: the installed library's version, else 10.3.0.",
)
@options.force
@options.quiet
@options.as_json
def quantize(
    model: Path,
    stats: Path | None,
    table: Path | None,
    output: Path | None,
    data: str | None,
    preprocess: str | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write MODEL with Q/DQ pairs: INT8 for every TensorRT, the only way on 11, and for onnxruntime.

    Scales come from the statistics of `quantkit calibrate` by any rule, without data, or from a calibration table
    verbatim, also one that TensorRT wrote. With --data the network is repaired as well: channels equalized, weights
    rounded so that outputs change least, biases corrected.
    """
    from quantkit.cli.progress import Spinner
    from quantkit.data import DataOptions
    from quantkit.quantization.quantize import QuantizeOptions
    from quantkit.quantization.quantize import quantize as run
    from quantkit.repairs.registry import parse_repairs
    from quantkit.sensitivity.exclusion_file import expand_name_files

    if stats is None and table is None:
        stats, table = find_scales(model, needed=data is None)
        if table is not None and not quiet and not as_json:
            note(f"no statistics beside the model: scales of {table.name} as they are, without repairs")
    refuse_unused_quantize_options(table is not None, data is not None)
    for name in ("exclude", "include"):
        settings[name] = expand_name_files(settings[name])
    repair = settings.pop("repair")
    settings["repairs"] = None if repair is None else parse_repairs(repair)
    settings["data"] = DataOptions(limit=settings.pop("limit"), skip_corrupt=bool(settings.pop("skip_corrupt")))
    target = output or model.with_name(f"{model.stem}.int8.onnx")
    with Spinner(hidden=quiet or as_json or not sys.stderr.isatty()) as spinner:
        made = run(
            model,
            target,
            statistics=stats,
            table=table,
            data=data,
            preprocess=preprocess,
            options=QuantizeOptions(**settings),
            phase=spinner.phase,
        )
    if as_json:
        print_json(quantize_document(made))
    elif not quiet:
        print_quantization(made)


def refuse_unused_quantize_options(table: bool, data: bool) -> None:
    """UsageError for options that would change nothing."""
    source = click.get_current_context().get_parameter_source
    idle = {"rule": "a table is taken as it is"} if table else {"min_coverage": "it is about --table"}
    idle |= {} if data else dict.fromkeys(("preprocess", "limit", "skip_corrupt"), "it is about --data")
    for name, why in idle.items():
        if source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('_', '-')} has no effect: {why}", remedy="leave it out")


def find_scales(model: Path, *, needed: bool, tables: bool = True) -> tuple[Path | None, Path | None]:
    """What `calibrate` wrote beside a model: statistics, else, where they are `needed`, the table, which TensorRT's
    calibrators write alone. UsageError where neither is there, or a table does not do (`tables`; for a rule or a repair
    that is asked for)."""
    path, table = model.with_name(f"{model.stem}.stats.safetensors"), model.with_name(f"{model.stem}.calib")
    if path.exists() or not needed:
        return path if path.exists() else None, None
    context = click.get_current_context()
    asked = [name for name in ("rule", "repair") if is_given(context, name) and context.params[name] != "none"]
    if table.exists() and tables and not asked:
        return None, table
    why = "no --stats, no --table"
    if table.exists():
        why = f"{table.name} is a table, which knows no --{asked[0]}" if asked else f"only the table {table.name}"
    raise UsageError(
        f"there are no statistics of {model}: no {path.name} beside it, {why}",
        remedy=f"quantkit calibrate --backend onnxruntime --data … {model} makes them"
        + (" (--force where TensorRT made the table)" if table.exists() else ""),
    )


def is_given(context: click.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def print_quantization(made: Quantization) -> None:
    """What was quantized, for people."""
    for text in made.notes[:SHOWN]:
        note(text)
    if len(made.notes) > SHOWN:
        note(f"… {len(made.notes) - SHOWN} more remarks (--json has all)")
    fields = [
        ("scales", made.source),
        (
            "Q/DQ",
            f"{len(made.pairs)} activations, {len(made.weights)} weights ({made.form.value} in the file), "
            f"operator set {made.opset}",
        ),
    ]
    if made.coverage is not None:
        covered = made.coverage
        text = f"{covered.share:.1%} of the float tensors matched"
        if covered.missing:
            text += f", {len(covered.missing)} missing ({', '.join(covered.missing[:3])} …)"
        if covered.extra:
            text += f", {len(covered.extra)} names that this network does not have (TensorRT's own, for example)"
        fields.append(("table", text))
    if made.folded:
        fields.append(("folded", f"{len(made.folded)} BatchNormalizations"))
    fields += [(name, repair.text) for name, repair in made.repairs.items()]
    if made.rules:
        chosen: dict[str, int] = {}
        for rule in made.rules.values():
            chosen[rule] = chosen.get(rule, 0) + 1
        fields.append(("rules", ", ".join(f"{count}× {rule}" for rule, count in chosen.items())))
    print_fields(fields)
    if made.left:
        print("\nstay float")
    for why, count in made.reasons.items():
        nodes = [node for node, reason in made.left.items() if reason.split(": ")[0] == why]
        shown = ", ".join(nodes[:3]) + (" …" if count > 3 else "")
        print(f"  {count:>3}  {why}: {shown}")
    print()
    for path in made.files:
        size = path.stat().st_size
        print(f"wrote  {path}  {size / 2**20:.1f} MiB" if size >= 1 << 20 else f"wrote  {path}  {size / 1024:.0f} KiB")


def quantize_document(made: Quantization) -> dict[str, Any]:
    """The result for programs."""
    covered = made.coverage
    return {
        "files": [str(path) for path in made.files],
        "scales_from": made.source,
        "pairs": dict(made.pairs),
        "rules": dict(made.rules),
        "weights": list(made.weights),
        "weights_as": made.form.value,
        "left": dict(made.left),
        "folded": list(made.folded),
        "repairs": {name: asdict(repair) for name, repair in made.repairs.items()},
        "opset": made.opset,
        "coverage": covered
        and {
            "share": covered.share,
            "matched": len(covered.matched),
            "missing": list(covered.missing),
            "extra": list(covered.extra),
        },
        "notes": list(made.notes),
    }
