"""What keeps the code readable is tested like everything else."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quantkit

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "quantkit").rglob("*.py"))
HEAVY = (
    "numpy",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "pycuda",
    "PIL",
    "pydantic",
    "matplotlib",
    "safetensors",
    "jinja2",
    "networkx",
    "torch",
    "tensorflow",
    "yaml",
)
NAMES = [
    "Algorithm", "BenchOptions", "Best", "BuildOptions", "BuiltEngine", "CalibrateOptions", "Calibration",
    "CalibrationTable", "Comparison", "CompileOptions", "CompileRequest", "CompiledModel", "DataOptions", "Engine",
    "Entropy", "EvaluateOptions", "EvaluatedShard", "Evaluation", "Finding", "FromQdq", "GpuProfile", "Histogram",
    "HistogramMode", "Imported", "LayersOptions", "LintReport", "MapOptions", "MeasuredShard", "MinMax", "Mse",
    "WeightedMse",
    "NetworkMap", "PRESETS", "Percentile", "Policy", "Precision", "Preprocess", "ProfileOptions", "Quantization",
    "QuantizeOptions", "QuantkitError", "Rule", "Run", "Sensitivity", "Settings", "Statistics", "TfOptions",
    "TfliteOptions", "TorchOptions", "TritonExport", "TritonOptions", "TuneOptions", "Tuning", "__version__", "adopt",
    "bench", "build", "calibrate", "compare", "compile", "convert", "coverage", "diff", "doctor", "evaluate",
    "evaluate_shard", "export_triton", "from_qdq", "from_tf", "from_tflite", "from_torch", "inspect", "layers",
    "layers_shard", "lint", "load_preprocess", "merge", "network_map", "profile", "quantize", "read_settings",
    "read_statistics", "read_table", "run", "tables_from", "tune", "write_statistics", "write_table",
]  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """The heavy libraries that a Python program loads."""
    probe = f"{code}\nimport sys\nprint(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_quantkit_is_free() -> None:
    assert loaded_by("import quantkit") == set()


@pytest.mark.parametrize("arguments", ["--help", "calibrate --help", "table show --help", "--version"])
def test_help_is_free(arguments: str) -> None:
    code = f"import quantkit.cli\nassert quantkit.cli.invoke({arguments.split()!r}) == 0"
    assert loaded_by(code) == set()


def test_the_public_names_are_these() -> None:
    assert sorted(quantkit.__all__) == sorted(NAMES)
    assert dir(quantkit) == sorted(quantkit.__all__)
    for name in NAMES:
        value = getattr(quantkit, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{name} has no docstring"
    with pytest.raises(AttributeError, match="nothing"):
        quantkit.nothing  # noqa: B018


def obstacles(path: Path) -> Iterator[str]:
    """What makes a file hard to read."""
    text = path.read_text(encoding="utf-8")
    if path.stem in {"utils", "helpers", "common", "misc"}:
        yield "its name says nothing"
    if text.count("\n") > 400:
        yield "it is long"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            if (node.end_lineno or 0) - node.lineno >= 60:
                yield f"{node.name} is long"
            if len(node.args.args) + len(node.args.kwonlyargs) > 10:
                yield f"{node.name} takes many arguments"


def test_files_are_for_readers() -> None:
    assert FILES
    found = {path.relative_to(ROOT).as_posix(): list(obstacles(path)) for path in FILES}
    assert not {name: faults for name, faults in found.items() if faults}


# ── imports ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def module_name(path: Path) -> str:
    """`quantkit.graph.model` for a file; a package goes by the name of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """The modules of quantkit that a file imports anywhere, in functions too; not those for type checkers alone."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules) or ({node.module} & modules)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
        waiting.extend(ast.iter_child_nodes(node))
    return found


def test_no_imports_run_in_a_circle() -> None:
    modules = {module_name(path): path for path in FILES}
    left = {name: imports_of(path, set(modules)) - {name, "quantkit"} for name, path in modules.items()}
    while free := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in free}
    assert not left, "these import each other, or what does"


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────

MANY_FILES = 24
SHARED_FUNCTIONS, SHARED_CLASSES = 0.08, 0.02


def shared_names(kind: type[ast.AST], top: dict[Path, list[ast.stmt]]) -> tuple[int, list[str]]:
    """How many functions or classes stand at the top of a file, and those whose name stands in another file too."""
    places: dict[str, list[str]] = {}
    for path, nodes in top.items():
        for node in nodes:
            if isinstance(node, kind) and not node.name.startswith("__"):  # type: ignore[attr-defined]
                places.setdefault(node.name, []).append(module_name(path))  # type: ignore[attr-defined]
    return sum(map(len, places.values())), [f"{n}: {', '.join(p)}" for n, p in places.items() if len(p) > 1 for _ in p]


def test_a_name_means_one_thing() -> None:
    top = {path: ast.parse(path.read_text(encoding="utf-8")).body for path in FILES}
    for kind, most in ((ast.FunctionDef, SHARED_FUNCTIONS), (ast.ClassDef, SHARED_CLASSES)):
        every, shared = shared_names(kind, top)
        assert len(shared) <= most * every, "\n".join(dict.fromkeys(shared))


def test_no_room_is_a_bag() -> None:
    for folder in {path.parent for path in FILES}:
        assert len(list(folder.glob("*.py"))) <= MANY_FILES, f"{folder} holds too many files: divide it by meaning"
        assert not (folder / "value.py").exists()


# ── doors ───────────────────────────────────────────────────────────────────────────────────────────────────────────

DOORS = {
    "read_bytes": "regular_file.py",
    "read_text": "regular_file.py",
    "Image.open": "image_file.py",
    "np.load": "",
    "open_memmap": "",
}
"""A call that reads what a path names → the only file that may contain it; of files of our own, any may."""


@pytest.mark.parametrize("call", DOORS)
def test_files_are_read_through_one_door(call: str) -> None:
    name = call.rpartition(".")[2]
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if name in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(call):
                own = "files('quantkit" in ast.unparse(node)
                assert own or path.name == DOORS[call], f"{path.name}, line {node.lineno}: use quantkit.regular_file"


LOOKS = {"exists", "is_file", "is_dir", "resolve", "with_name"}
"""Methods of a path that raise OSError or ValueError for some paths and say False for others."""
LOOKING = {"paths.py", "staging.py", "store.py", "image_folder.py"}
"""Files that may call them: for paths that are not the user's, or where the error is handled."""


def test_paths_are_looked_at_by_functions_that_name_them() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and path.name not in LOOKING:
                is_look = node.func.attr in LOOKS and (not node.args or node.func.attr == "with_name")
                assert not is_look, f"{path.name}, line {node.lineno}: use quantkit.paths, not .{node.func.attr}()"


SCRIPTS = sorted(path for folder in ("benchmarks", "calibration_data") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_scripts_import_names_that_exist(path: Path) -> None:
    """Benchmarks are not run by the tests; a renamed function must not leave them behind."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "quantkit":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if alias.name not in getattr(module, "__all__", ()) and not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
