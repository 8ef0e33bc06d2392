"""Build options: what contradicts itself is refused, and the `trtexec` line says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantkit.backends.tensorrt.options import BuildFiles, BuildOptions, Precision, Verbosity, equivalent_trtexec
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.errors import UsageError
from quantkit.table import Algorithm, CalibrationTable, Header

FILES = BuildFiles(Path("m.onnx"), Path("m.engine"))
SCALED = replace(FILES, table=Path("m.calib"))
EXPLICIT = replace(FILES, explicit=True)
TABLE = CalibrationTable(Header(Algorithm.ENTROPY_2, 8601), {"x": 0.5})
RANGES = {
    "image": ShapeRange((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8)),
    "fixed": ShapeRange((2, 2), (2, 2), (2, 2)),
    "ids": ShapeRange((1,), (4,), (16,)),
}
HEAD = "trtexec --onnx=m.onnx --saveEngine=m.engine"
TAIL = "--builderOptimizationLevel=3 --noBuilderCache --profilingVerbosity=detailed"


@pytest.mark.parametrize(
    ("precision", "more", "flags", "without_scales", "tf32", "int8"),
    [
        ("fp32", {}, (), (), False, False),
        ("fp32", {"fp16": False}, (), (), False, False),
        ("tf32", {}, (), (), True, False),
        ("fp16", {}, ("FP16",), ("FP16",), True, False),
        ("fp16", {"fp16": False}, ("FP16",), ("FP16",), True, False),
        ("fp16", {"tf32": False}, ("FP16",), ("FP16",), False, False),
        ("int8", {}, ("INT8", "FP16"), ("FP16",), True, True),
        ("int8", {"fp16": False}, ("INT8",), (), True, True),
        ("int8", {"tf32": False}, ("INT8", "FP16"), ("FP16",), False, True),
        ("best", {}, ("INT8", "FP16"), ("FP16",), True, True),
        ("best", {"fp16": False}, ("INT8",), (), True, True),
    ],
)
def test_a_precision_is_a_set_of_flags(
    precision: str,
    more: dict[str, Any],
    flags: tuple[str, ...],
    without_scales: tuple[str, ...],
    tf32: bool,
    int8: bool,
) -> None:
    options = BuildOptions(precision=Precision.named(precision), **more)
    assert (options.flags(scales=True), options.flags(scales=False)) == (flags, without_scales)
    assert (options.allows_tf32, options.int8) == (tf32, int8)
    assert options.document()["tf32"] is tf32


@pytest.mark.parametrize(
    ("options", "files", "table", "kept", "wanted"),
    [
        (
            BuildOptions(),
            BuildFiles(
                Path("m.onnx"), Path("m.engine"), table=Path("m.calib"), timing_cache=Path("t.cache"), ranges=RANGES
            ),
            TABLE,
            (),
            f"{HEAD} --fp16 --int8 --calib=m.calib --minShapes=image:1x3x8x8,ids:1 --optShapes=image:4x3x8x8,ids:4 "
            "--maxShapes=image:16x3x8x8,ids:16 --builderOptimizationLevel=3 --timingCacheFile=t.cache "
            "--profilingVerbosity=detailed",
        ),
        (
            BuildOptions(precision=Precision.TF32),
            BuildFiles(Path("m.onnx"), Path("m.engine"), shares_profile=True),
            None,
            (),
            f"{HEAD} --builderOptimizationLevel=3 --noBuilderCache --preview=+profileSharing0806 "
            "--profilingVerbosity=detailed",
        ),
        (BuildOptions(precision=Precision.FP32), FILES, None, (), f"{HEAD} --noTF32 {TAIL}"),
        (BuildOptions(precision=Precision.TF32), FILES, None, (), f"{HEAD} {TAIL}"),
        (BuildOptions(precision=Precision.FP16, tf32=False), FILES, None, (), f"{HEAD} --fp16 --noTF32 {TAIL}"),
        (BuildOptions(fp16=False), SCALED, TABLE, (), f"{HEAD} --int8 --calib=m.calib {TAIL}"),
        (BuildOptions(), EXPLICIT, None, (), f"{HEAD} --fp16 --int8 {TAIL}"),
        (BuildOptions(precision=Precision.BEST), FILES, None, (), f"{HEAD} --fp16 {TAIL}"),
        (BuildOptions(precision=Precision.BEST, fp16=False), FILES, None, (), f"{HEAD} {TAIL}"),
        (BuildOptions(strongly_typed=True), EXPLICIT, None, (), f"{HEAD} --stronglyTyped {TAIL}"),
        (
            BuildOptions(precision=Precision.FP32, strongly_typed=True, device=2),
            FILES,
            None,
            (),
            f"{HEAD} --stronglyTyped --noTF32 --builderOptimizationLevel=3 --noBuilderCache --device=2 "
            "--profilingVerbosity=detailed",
        ),
        (
            BuildOptions(workspace=(1 << 30) + 1, level=5, verbosity=Verbosity.NAMES),
            EXPLICIT,
            None,
            (),
            f"{HEAD} --fp16 --int8 --memPoolSize=workspace:1025 --builderOptimizationLevel=5 "
            "--noBuilderCache --profilingVerbosity=layer_names_only",
        ),
        (
            BuildOptions(
                precision=Precision.FP16,
                version_compatible=True,
                hardware_compatible=True,
                refit=True,
                level=0,
                verbosity=Verbosity.NONE,
            ),
            FILES,
            None,
            (),
            f"{HEAD} --fp16 --builderOptimizationLevel=0 --noBuilderCache --versionCompatible "
            "--hardwareCompatibilityLevel=ampere+ --refit --profilingVerbosity=none",
        ),
        (
            BuildOptions(),
            BuildFiles(Path("my model.onnx"), Path("m.engine"), Path("my table.calib")),
            TABLE,
            (),
            "trtexec '--onnx=my model.onnx' --saveEngine=m.engine --fp16 --int8 '--calib=my table.calib' "
            f"{TAIL}",
        ),
    ],
)  # fmt: skip
def test_the_line_for_trtexec(
    options: BuildOptions, files: BuildFiles, table: CalibrationTable | None, kept: tuple[str, ...], wanted: str
) -> None:
    command = equivalent_trtexec(options, files, table, kept)
    assert (command.line, command.reason) == (wanted, "")


@pytest.mark.parametrize(("fp16", "dtype"), [(True, "fp16"), (False, "fp32")])
def test_nodes_that_are_kept_out_of_int8_stand_in_the_line(fp16: bool, dtype: str) -> None:
    line = equivalent_trtexec(BuildOptions(fp16=fp16), SCALED, TABLE, ("/a/Conv", "/b/Relu")).line
    assert line is not None
    assert line.split()[-3:] == [
        "--precisionConstraints=obey",
        f"--layerPrecisions=/a/Conv:{dtype},/b/Relu:{dtype}",
        f"--layerOutputTypes=/a/Conv:{dtype},/b/Relu:{dtype}",
    ]
    plain = equivalent_trtexec(BuildOptions(fp16=fp16), SCALED, TABLE, ()).line
    assert plain is not None
    assert line.split()[:-3] == plain.split()


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a is not Algorithm.ENTROPY_2])
def test_trtexec_reads_tables_of_one_calibrator_only(algorithm: Algorithm) -> None:
    table = CalibrationTable(Header(algorithm, None if algorithm is Algorithm.LEGACY else 8601), {"x": 0.5})
    command = equivalent_trtexec(BuildOptions(), FILES, table, ())
    assert command.line is None
    assert algorithm.value in command.reason


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"level": 6}, "level is 6"),
        ({"level": -1}, "level is -1"),
        ({"min_coverage": 1.01}, "min_coverage is 1.01"),
        ({"min_coverage": -0.1}, "min_coverage is -0.1"),
        ({"min_coverage": float("nan")}, "min_coverage is nan"),
        ({"workspace": 0}, "workspace"),
        ({"exclude": ("/a",), "precision": Precision.FP16}, "exclude="),
        ({"precision": Precision.TF32, "tf32": False}, "precision tf32 contradicts"),
    ],
)
def test_options_that_cannot_be_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        BuildOptions(**settings)


def test_names_of_precisions_and_verbosities() -> None:
    assert [Precision.named(p.value) for p in Precision] == list(Precision)
    assert [Verbosity.named(v.value) for v in Verbosity] == list(Verbosity)
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        Precision.named("int4")
    with pytest.raises(UsageError, match="unknown verbosity 'loud'"):
        Verbosity.named("loud")


def test_names_are_taken_for_precisions_and_verbosities() -> None:
    options = BuildOptions(precision="fp16", verbosity="names")  # type: ignore[arg-type]
    assert options == BuildOptions(precision=Precision.FP16, verbosity=Verbosity.NAMES)
    assert (options.precision, options.verbosity) == (Precision.FP16, Verbosity.NAMES)
    assert not options.int8
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        BuildOptions(precision="int4")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown verbosity 'loud'"):
        BuildOptions(verbosity="loud")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [BuildOptions(precision=Precision.FP16), BuildOptions(strongly_typed=True)])
def test_a_tensorrt_without_precision_flags_is_given_none(options: BuildOptions) -> None:
    line = equivalent_trtexec(options, replace(EXPLICIT, always_strong=True), None, ()).line
    assert line == f"{HEAD} {TAIL}"


DECIDES = {
    "precision": Precision.BEST,
    "fp16": False,
    "tf32": False,
    "workspace": 1 << 20,
    "level": 1,
    "version_compatible": True,
    "hardware_compatible": True,
    "refit": True,
    "strongly_typed": True,
    "verbosity": Verbosity.NONE,
    "exclude": ("Softmax",),
    "timing_cache": False,
}


@pytest.mark.parametrize("name", DECIDES)
def test_every_option_that_decides_about_the_engine_is_in_the_document(name: str) -> None:
    assert BuildOptions(**{name: DECIDES[name]}).document() != BuildOptions().document()  # type: ignore[arg-type]
    others: dict[str, Any] = {"force": True, "retarget": True, "min_coverage": 0.5, "device": 3}
    assert BuildOptions(**others).document() == BuildOptions().document()
