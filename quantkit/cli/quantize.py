"""The command `quantkit quantize`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.parsing import WHOLE
from quantkit.cli.arguments.scale_files import ScaleFiles, find_scales
from quantkit.cli.arguments.unused import refuse_unused
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, note, print_fields, print_heading, print_line, print_sizes
from quantkit.errors import UsageError
from quantkit.paths import beside

if TYPE_CHECKING:
    from quantkit.quantization.result import Quantization
    from quantkit.table import Coverage

SHOWN = 20


@verb(
    "Write a Q/DQ model, for TensorRT 11 and all others",
    "quantkit quantize model.onnx --data images/train",
    "quantkit quantize model.onnx --table model.calib -o model.qdq.onnx",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.scale_files
@options.data_choice()
@options.layer_selection(rule=options.rule(text="With --data, samples that are held out choose it unless you do."))
@options.repair("with --data those that help on samples that are held out, else those that need none")
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    help="Q/DQ model to write. Default: MODEL.TYPE.onnx beside the model: MODEL.int8.onnx, fp8 or mixed.",
)
@click.option(
    "--weights",
    metavar="float|int8|fp8|mixed",
    help="How weights are stored in the file. Default: in the type for TensorRT 10 and newer, float for older ones.",
)
@click.option(
    "--fp16", is_flag=True, help="Convert the rest of the model to FP16, for TensorRT 11, which has no flag for it."
)
@click.option(
    "--for",
    "gpu_profile",
    metavar="PROFILE",
    type=options.PATH,
    help="GPU profile: operators stay float where INT8 was not faster on that GPU (quantkit profile).",
)
@click.option(
    "--for-batch",
    "gpu_batch",
    metavar="N",
    type=WHOLE,
    help="Batch size that --for chooses for. Default: that of the model, else 1.",
)
@options.tensorrt_version
@options.force
@options.printing
def quantize(
    model: Path,
    scales: ScaleFiles,
    samples: options.DataChoice,
    selection: options.LayerSelection,
    repair: str | None,
    output: Path | None,
    printing: Printing,
    **own: Any,
) -> None:
    """Write MODEL with Q/DQ nodes: INT8 for every TensorRT version (the only way on TensorRT 11) and for onnxruntime.

    Scales come from the statistics of `quantkit calibrate` by any calibration method, without data, or unchanged from a
    calibration table, including one that TensorRT wrote. With --data the model is repaired as well (--repair), so that
    INT8 loses less accuracy, and calibration method and repairs are chosen on samples that nothing was fitted to.
    """
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.quantization.options import QuantizeOptions
    from quantkit.quantization.planned_type import planned_type
    from quantkit.quantization.quantize import quantize as run
    from quantkit.repairs.registry import parse_repairs

    if scales.stats is None and scales.table is None:
        scales = find_scales_to_quantize(model, needed=samples.data is None)
        if scales.table is not None and not printing.quiet and not printing.as_json:
            note(f"no statistics beside the model: using the scales of {scales.table.name} unchanged, without repairs")
    refuse_unused_quantize_options(scales.table is not None, samples.data is not None)
    chosen = QuantizeOptions(
        **selection.keywords(),
        **own,
        repairs=None if repair is None else parse_repairs(repair),
        data=samples.reading(),
    )
    with Spinner(hidden=printing.hides_progress) as spinner:
        result = run(
            model,
            output or beside(model, f"{model.stem}.{planned_type(model, chosen).value}.onnx"),
            statistics=scales.stats,
            table=scales.table,
            data=samples.data,
            preprocess=samples.preprocess,
            options=chosen,
            phase=spinner.phases,
        )
    printing.print_result(result, quantize_document, print_quantization)


def find_scales_to_quantize(model: Path, *, needed: bool) -> ScaleFiles:
    """Return the statistics or the table beside a model. UsageError, ModelError.

    A model that cannot be read or already has Q/DQ is refused as such, because no statistics would help.
    """
    from quantkit.graph import load_model
    from quantkit.quantization.quantize import refuse_quantized

    try:
        return find_scales(model, needed=needed)
    except UsageError:
        refuse_quantized(load_model(model))
        raise


def refuse_unused_quantize_options(table: bool, data: bool) -> None:
    """Raise UsageError for options that would change nothing. table, data: whether scales are from a table, and whether
    there is data."""
    reasons = {"rule": "the scales of a table are used unchanged"} if table else {"min_coverage": "it is for --table"}
    reasons |= {} if data else dict.fromkeys(("preprocess", "limit", "skip_corrupt", "frame_step"), "it is for --data")
    refuse_unused(reasons)


def print_quantization(result: Quantization) -> None:
    """Print what was quantized, and what stays in float."""
    from quantkit.qdq.insertion import WeightForm
    from quantkit.values import NetworkType

    for text in result.notes[:SHOWN]:
        note(text)
    if len(result.notes) > SHOWN:
        note(f"… {len(result.notes) - SHOWN} more remarks (--json lists all)")
    stored = "each in its type" if result.form is WeightForm.MIXED else result.form.value
    counts = f"{len(result.pairs)} activations, {len(result.weights)} weights ({stored} in the file)"
    fields = [("scales", result.source), ("Q/DQ", f"{counts}, opset {result.opset}")]
    if result.type is NetworkType.MIXED:
        fields.append(("types", result.types_text))
    if result.held_out is not None:
        fields += [("held out", line) for line in result.held_out.lines]
    if result.coverage is not None:
        fields.append(("table", coverage_text(result.coverage)))
    if result.folded:
        fields.append(("folded", f"{len(result.folded)} BatchNormalizations"))
    fields += [(name, repair.text) for name, repair in result.repairs.items()]
    if result.rules:
        chosen = Counter(result.rules.values())
        fields.append(("rules", ", ".join(f"{count}× {rule}" for rule, count in chosen.items())))
    if result.trial is not None:
        fields.append(("tried", result.trial.text))
    print_fields(fields)
    print_float_nodes(result)
    print_line()
    if result.reused:
        for path in result.files:
            print_line(f"file  {path}")
    else:
        print_sizes(result.files)


def coverage_text(coverage: Coverage) -> str:
    """Return how well the table fits the model."""
    text = f"{coverage.share:.1%} of the float tensors matched"
    if coverage.missing:
        text += f", {len(coverage.missing)} missing ({', '.join(coverage.missing[:3])} …)"
    if coverage.extra:
        text += f", {len(coverage.extra)} names that this model does not have (TensorRT's own, for example)"
    return text


def print_float_nodes(result: Quantization) -> None:
    """Print the nodes that stay in float, by reason."""
    if result.left:
        print_heading("kept in float")
    for why, count in result.reasons.items():
        nodes = [node for node, reason in result.left.items() if reason.summary == why]
        shown = ", ".join(nodes[:3]) + (" …" if count > 3 else "")
        print_line(f"  {count:>3}  {why}: {shown}")


def quantize_document(result: Quantization) -> dict[str, Any]:
    """Return the result for programs."""
    coverage = result.coverage
    return {
        "reused": result.reused,
        "files": [str(path) for path in result.files],
        "scales_from": result.source,
        "pairs": dict(result.pairs),
        "rules": dict(result.rules),
        "weights": list(result.weights),
        "weights_as": result.form.value,
        "type": result.type.value,
        "types": {node: kind.value for node, kind in result.types.items()},
        "also_fp8": dict(result.also_fp8),
        "int8_layers": list(result.int8_layers),
        "fp8_layers": result.fp8_layers,
        "left": {node: str(reason) for node, reason in result.left.items()},
        "folded": list(result.folded),
        "repairs": {name: asdict(repair) for name, repair in result.repairs.items()},
        "opset": result.opset,
        "coverage": coverage
        and {
            "share": coverage.share,
            "matched": len(coverage.matched),
            "missing": list(coverage.missing),
            "extra": list(coverage.extra),
        },
        "held_out": result.held_out and result.held_out.document,
        "trial": result.trial and result.trial.document,
        "notes": list(result.notes),
    }
