"""Any folder of ONNX networks through inspect, calibrate, quantize, lint, onnxruntime and evaluate.

    python benchmarks/zoo.py FOLDER… [--onnx-cases] [--json results/zoo.json] [--seconds 120] [--mib 8192]

Inputs are a network's own test data, if it lies beside it in ONNX's layout, and random numbers otherwise: the figures
show that every stage gets through, not how accurate a network is. Every network has a process of its own with limits.

    ok        the stage did its work
    refused   one clear error; the table shows its first words
    fault     a traceback, a hang, a process that died, a written file that does not load or has lint errors
    -         not reached

`--onnx-cases` adds onnx's backend tests of single operators, which its package has as code. The exit code is 1 if there
is a fault.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pkgutil
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from harness import tables
from harness.machine import this_machine
from harness.made_up_inputs import Batch, fed_inputs, possible_batches, write_batches
from harness.process import tree_mib

STAGES = ("inspect", "float", "calibrate", "quantize", "lint", "load", "evaluate")
OK, REFUSED, FAULT, OPEN = "ok", "refused", "fault", "-"
WORDS = 60


@dataclass(slots=True)
class Row:
    """One network. stages: outcome of each; words: first words of refusals and faults, by stage."""

    network: str
    opset: int = 0
    nodes: int = 0
    inputs: str = ""
    stages: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    sqnr_db: float | None = None
    int8: int | None = None
    weighted: int | None = None
    seconds: float = 0.0

    @property
    def faulty(self) -> bool:
        """Whether a stage ended in a fault."""
        return FAULT in self.stages.values()


class Trip:
    """One network on its way, in a process of its own; what is known is on disk after every stage."""

    def __init__(self, model: Path, row: Row, work: Path) -> None:
        self.model, self.row, self.work = model, row, work
        self.data, self.quantized = work / "batches", work / "model.int8.onnx"
        self.batches: list[Batch] = []

    def travel(self) -> None:
        """All stages in turn."""
        try:
            for stage in STAGES:
                self.row.stages[stage] = FAULT  # until it has ended
                self.row.words[stage] = "died"
                self.save()
                self.row.stages[stage], self.row.words[stage] = self.outcome(getattr(self, f"_{stage}"))
                refused = stage in ("inspect", "calibrate") and self.row.stages[stage] == REFUSED
                if refused or self.row.stages[stage] == FAULT:
                    return
        finally:
            self.row.words = {stage: words for stage, words in self.row.words.items() if words}
            self.save()

    def save(self) -> None:
        """Write the row for the parent."""
        draft = self.work / "row.tmp"
        draft.write_text(json.dumps(asdict(self.row)), encoding="utf-8")
        draft.replace(self.work / "row.json")

    def outcome(self, stage: Callable[[], tuple[str, str]]) -> tuple[str, str]:
        """Run one stage; what it raises is a fault."""
        try:
            return stage()
        except Exception as error:
            traceback.print_exc()
            return FAULT, f"{type(error).__name__}: {error}".splitlines()[0][:200]

    def quantkit(self, *arguments: str | Path) -> tuple[str, str]:
        """One command of quantkit: its outcome, and its standard output or first line of error."""
        from quantkit.cli import invoke

        out, err = self.work / "stdout", self.work / "stderr"
        with redirected(1, out), redirected(2, err):
            try:
                code = invoke([str(argument) for argument in arguments])
            except BaseException as error:
                traceback.print_exc()
                return FAULT, f"{type(error).__name__}: {error}".splitlines()[0][:200]
        said = out.read_text(encoding="utf-8", errors="replace")
        errors = err.read_text(encoding="utf-8", errors="replace")
        if code == 0 or (arguments[0] == "lint" and code == 1 and said):
            return OK, said
        lines = [line for line in errors.splitlines() if not line.startswith(("warning:", "note:"))]
        first = lines[0].removeprefix("quantkit: ") if lines else f"exit code {code} without a word"
        return (REFUSED if lines and "Traceback" not in errors else FAULT), without_folders(first)

    def _inspect(self) -> tuple[str, str]:
        outcome, words = self.quantkit("inspect", self.model)
        return outcome, "" if outcome == OK else words

    def _float(self) -> tuple[str, str]:
        """Whether onnxruntime runs the network at all, and on which inputs."""
        if self.row.stages["inspect"] != OK:
            return OPEN, ""
        proto = onnx.load(str(self.model), load_external_data=False)
        self.row.opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
        self.row.nodes = len(proto.graph.node)
        inputs, reason = fed_inputs(proto), ""
        for origin, batches in possible_batches(self.model, inputs):
            if not batches:
                reason = "an input is no tensor"
                break
            if not self.batches:
                self.batches = batches
            try:
                run_once(self.model, batches[0])
            except Exception as error:
                reason = reason or without_folders(str(error).splitlines()[0])
                if not any(d.dim_value <= 0 for i in inputs for d in i.type.tensor_type.shape.dim):
                    break
                continue
            self.row.inputs, self.batches = origin, batches
            write_batches(self.batches, self.data)
            return OK, ""
        write_batches(
            self.batches or [{"x": onnx.numpy_helper.to_array(onnx.helper.make_tensor("x", 1, [1], [0.0]))}], self.data
        )
        return REFUSED, reason

    def _calibrate(self) -> tuple[str, str]:
        if self.row.stages["inspect"] != OK:
            return OPEN, ""
        outcome, words = self.quantkit(
            "calibrate", self.model, "--data", self.data, "-q", "-o", self.work / "model.calib"
        )
        return outcome, "" if outcome == OK else words

    def _quantize(self) -> tuple[str, str]:
        statistics = self.work / "model.stats.safetensors"
        outcome, words = self.quantkit("quantize", self.model, "--stats", statistics, "-q", "-o", self.quantized)
        return outcome, "" if outcome == OK else words

    def _lint(self) -> tuple[str, str]:
        if not self.quantized.exists():
            return OPEN, ""
        outcome, said = self.quantkit("lint", self.quantized, "--json")
        if outcome != OK:
            return outcome, said
        errors = [f for f in json.loads(said)["findings"] if f["severity"] == "error"]
        return (FAULT, f"lint: {errors[0]['rule']}: {errors[0]['text']}"[:200]) if errors else (OK, "")

    def _load(self) -> tuple[str, str]:
        if self.row.stages["float"] != OK or not self.quantized.exists():
            return OPEN, ""
        run_once(self.quantized, self.batches[0])
        return OK, ""

    def _evaluate(self) -> tuple[str, str]:
        """The Q/DQ network, or INT8 simulated with the table where there is none, beside the float network."""
        other = self.quantized if self.quantized.exists() else f"{self.model}+{self.work / 'model.calib'}"
        outcome, said = self.quantkit("evaluate", self.model, other, "--data", self.data, "--no-labels", "--json", "-q")
        if outcome != OK:
            return outcome, said
        figures = json.loads(said)["models"][1]
        self.row.sqnr_db = figures["sqnr_db"]
        self.row.int8, self.row.weighted = figures["int8_layers"] or (None, None)
        return OK, ""


def run_once(model: Path, batch: Batch) -> None:
    """Load and run a network in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    session.run(None, dict(batch))


class redirected:  # noqa: N801 (read as a verb)
    """A file descriptor of this process that goes to a file for a while."""

    def __init__(self, number: int, path: Path) -> None:
        self._number, self._path = number, path

    def __enter__(self) -> None:
        (sys.stdout if self._number == 1 else sys.stderr).flush()
        self._saved = os.dup(self._number)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, self._number)
        os.close(file)

    def __exit__(self, *_: object) -> None:
        (sys.stdout if self._number == 1 else sys.stderr).flush()
        os.dup2(self._saved, self._number)
        os.close(self._saved)


def without_folders(text: str) -> str:
    """A message without the folders of this machine."""
    return re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", "", text)


def load_modules() -> None:
    """Import quantkit whole, so that the processes of the networks, which are forked, need not."""
    import quantkit

    for module in pkgutil.walk_packages(quantkit.__path__, "quantkit."):
        if not module.name.endswith(("__main__", "pytorch", "tensorflow", "tflite")):
            try:
                import_module(module.name)
            except ImportError:
                continue


def visit(model: Path, name: str, seconds: float, mib: float) -> Row:
    """One network in a forked process, stopped where it exceeds a limit."""
    begin, row = time.perf_counter(), Row(name)
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        work = Path(folder)
        child = multiprocessing.get_context("fork").Process(target=work_in_child, args=(model, row, work))
        child.start()
        stopped = ""
        while child.is_alive():
            child.join(0.05)
            if time.perf_counter() - begin > seconds:
                stopped = f"stopped after {seconds:g} s"
            elif child.pid and tree_mib(child.pid) > mib:
                stopped = f"stopped at {mib:g} MiB"
            if stopped:
                child.kill()
                child.join()
        row = Row(**json.loads((work / "row.json").read_text(encoding="utf-8")))
        if stopped or child.exitcode:
            last = list(row.stages)[-1]
            row.stages[last], row.words[last] = FAULT, stopped or f"died with exit code {child.exitcode}"
    row.stages = {stage: row.stages.get(stage, OPEN) for stage in STAGES}
    row.seconds = round(time.perf_counter() - begin, 2)
    return row


def work_in_child(model: Path, row: Row, work: Path) -> None:
    """The forked process: quiet, in its own folder."""
    log = os.open(work / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(work)
    Trip(model, row, work).travel()


def models_in(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Name and path of every ONNX file, sorted; a file may be given directly."""
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("*.onnx"))
        for path in files:
            inside = path.relative_to(folder.parent)
            yield (str(inside.parent) if path.name == "model.onnx" else str(inside.with_suffix(""))), path.resolve()


def write_onnx_cases(folder: Path) -> Path:
    """onnx's backend tests of single operators, as files with their test data."""
    from onnx import numpy_helper
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases():
        place = folder / "onnx-cases" / case.name
        data = place / "test_data_set_0"
        data.mkdir(parents=True)
        onnx.save(case.model, str(place / "model.onnx"))
        for number, value in enumerate(case.data_sets[0][0]):
            tensor = value if isinstance(value, onnx.TensorProto) else None
            if tensor is None and hasattr(value, "dtype"):
                tensor = numpy_helper.from_array(value)
            if tensor is not None:
                onnx.save_tensor(tensor, str(data / f"input_{number}.pb"))
    return folder / "onnx-cases"


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Networks, faults, and outcomes by stage."""
    return {
        "networks": len(rows),
        "faults": sum(row.faulty for row in rows),
        "stages": {stage: dict(Counter(row.stages[stage] for row in rows)) for stage in STAGES},
    }


def shown(row: Row) -> tables.Row:
    """A row of the table."""
    sqnr = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
    int8 = "-" if row.int8 is None else f"{row.int8}/{row.weighted}"
    words = next(iter([w for s, w in row.words.items() if row.stages[s] == FAULT] or row.words.values()), "")
    outcomes = (row.stages[stage] for stage in STAGES)
    return (row.network, str(row.opset), str(row.nodes), *outcomes, sqnr, int8, f"{row.seconds:.1f}", words[:WORDS])


def main(arguments: Sequence[str] | None = None) -> int:
    """Visit all networks, print the table, write the JSON. 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--onnx-cases", action="store_true", help="also onnx's backend tests of single operators")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows")
    parser.add_argument("--seconds", type=float, default=120.0, help="limit for one network")
    parser.add_argument("--mib", type=float, default=8192.0, help="limit for one network")
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks whose name contains this")
    given = parser.parse_args(arguments)
    load_modules()
    with tempfile.TemporaryDirectory(prefix="zoo-cases-") as folder:
        folders = [*given.folders, *([write_onnx_cases(Path(folder))] if given.onnx_cases else [])]
        rows: list[Row] = []
        for name, path in models_in(folders):
            if given.only in name:
                rows.append(visit(path, name, given.seconds, given.mib))
                print(" ".join(shown(rows[-1])), file=sys.stderr, flush=True)
    head = ("network", "opset", "nodes", *STAGES, "SQNR dB", "INT8", "s", "first words")
    print(tables.plain_text(head, map(shown, rows)))
    figures = summary(rows)
    print(f"\n{figures['networks']} networks on made-up inputs, {figures['faults']} with a fault")
    if given.json:
        write_json(given.json, rows, figures)
    return int(figures["faults"] > 0)


def refusals(rows: Sequence[Row]) -> dict[str, int]:
    """How often each stage refused or failed, and with what words; names and numbers in them are left out."""
    counts = Counter(
        f"{stage} {row.stages[stage]}: " + re.sub(r"'[^']*'|^\S+\.onnx\S*|\d+|\[[^\]]*\]", "…", words)[:100]
        for row in rows
        for stage, words in row.words.items()
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_json(path: Path, rows: Sequence[Row], figures: Mapping[str, Any]) -> None:
    """The summary, refusals by their words, and a line for each network that was quantized or is at fault."""
    machine = json.dumps(asdict(this_machine()))
    versions = json.dumps({"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__})
    kept = [row for row in rows if row.faulty or row.stages["quantize"] == OK]
    lines = ",\n  ".join(json.dumps(asdict(row), ensure_ascii=False) for row in kept)
    path.write_text(
        f'{{"kind": "zoo",\n "machine": {machine},\n "versions": {versions},\n'
        f' "summary": {json.dumps(figures)},\n'
        f' "refusals": {json.dumps(refusals(rows), ensure_ascii=False, indent=2)},\n "rows": [\n  {lines}\n ]}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
