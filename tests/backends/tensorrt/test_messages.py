"""What TensorRT says: warnings once, phases, scales that it missed; and the times that its tuner measured.

`data/build.txt` holds lines that TensorRT 8.6.1 logged for ResNet-20 and a vision transformer, severity first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantkit.backends.tensorrt.kernel_times import KernelTimes
from quantkit.backends.tensorrt.messages import Messages, capture_messages, logger, make_or_raise
from quantkit.errors import BackendError

LOG = [tuple(line.split(": ", 1)) for line in (Path(__file__).parent / "data" / "build.txt").read_text().splitlines()]
FIRST = "/0/0.0/Conv + /0/0.2/Relu"
COMBINATION = "*************** Autotuning format combination: {} -> Half(1,1) ***************"


def heard(lines: list[tuple[str, ...]] = LOG) -> tuple[Messages, list[str]]:
    phases: list[str] = []
    messages = Messages(phases.append)
    for severity, text in lines:
        messages.take(severity, text)
    return messages, phases


def timed(layer: str, milliseconds: str, runner: str = "CaskConvolution[0x80000009]") -> str:
    return f"{layer} ({runner}) profiling completed in 0.01 seconds. Fastest Tactic: 0x1f Time: {milliseconds}"


def test_a_build_log() -> None:
    messages, phases = heard()
    assert phases == [
        "fusing layers",
        "reading the table",
        "fusing layers",
        "choosing kernels, layer 1",
        "choosing kernels, layer 2",
        "finishing the engine",
        "finishing the engine",
    ]
    assert [text.partition(":")[0] for text in messages.warnings] == [
        "21 weights do not fit FP16",
        "3 weights do not fit FP16",
    ]
    assert messages.errors == ()
    assert list(messages.unscaled) == ["(Unnamed Layer* 17) [Constant]_output", "/b/b.2/Pow_output_0"]
    assert messages.mention("Detected subnormal FP16 values")
    assert not messages.mention("INT64")
    assert list(messages.tuning.fastest) == [FIRST, "reshape_after_/10/fc/Gemm"]
    assert messages.tuning.summary(FIRST) == "FP16 0.0052 ms, INT8 0.0062 ms, FP32 0.0083 ms"
    assert messages.tuning.summary("reshape_after_/10/fc/Gemm") == "FP32 0.0074 ms"


def test_without_a_listener_the_same_is_kept() -> None:
    silent = Messages()
    for severity, text in LOG:
        silent.take(severity, text)
    loud, _ = heard()
    assert (silent.warnings, silent.tuning.fastest) == (loud.warnings, loud.tuning.fastest)


def test_weights_that_do_not_fit_fp16_are_told_in_one_line() -> None:
    preamble = "TensorRT encountered issues when converting weights between types and that could affect accuracy."
    advice = "If this is not the desired behavior, please modify the weights or retrain with regularization"
    affected = " - 21 weights are affected by this issue: Detected subnormal FP16 values."
    lists = "Check verbose logs for the list of affected weights."
    said = [("WARNING", text) for text in (preamble, advice, lists, affected)]
    assert heard(said)[0].warnings == ("21 weights do not fit FP16: Detected subnormal FP16 values.",)
    assert heard(said * 2)[0].warnings == ("21 weights do not fit FP16: Detected subnormal FP16 values. (2 times)",)
    assert heard([("WARNING", "other weights are affected")])[0].warnings == ("other weights are affected",)


def nothing() -> None:
    """As a call that TensorRT answers with null."""


def null() -> None:
    raise TypeError("pybind11::init(): factory function returned nullptr")


@pytest.mark.parametrize("make", [nothing, null])
def test_what_tensorrt_does_not_make_is_an_error_with_what_it_said(make: Callable[[], None]) -> None:
    messages = heard([("INTERNAL_ERROR", "CUDA initialization failure"), ("WARNING", "w"), ("ERROR", "b")])[0]
    with pytest.raises(BackendError, match=r"^TensorRT does not start: CUDA initialization failure; b\n"):
        make_or_raise(make, messages)
    with pytest.raises(BackendError, match=r"^the engine cannot be read back: it gives no reason\n"):
        make_or_raise(make, Messages(), "the engine cannot be read back")


def test_what_tensorrt_makes_is_handed_on() -> None:
    thing = object()
    assert make_or_raise(lambda: thing, heard([("ERROR", "said")])[0]) is thing
    assert make_or_raise(bytes, Messages()) == b"", "empty is not nothing"
    with pytest.raises(ZeroDivisionError):
        make_or_raise(lambda: 1 // 0, Messages())


def test_warnings_and_errors_once_each_in_their_order() -> None:
    said = [("WARNING", "b"), ("ERROR", "no\n  kernel "), ("WARNING", "a"), ("WARNING", " b\n"), ("INFO", "c")]
    messages, phases = heard([*said, ("INTERNAL_ERROR", "a"), ("VERBOSE", "v")])
    assert messages.warnings == ("b (2 times)", "a")
    assert messages.errors == ("no kernel", "a")
    assert messages.mention("kernel")
    assert not messages.mention("c")
    assert phases == []


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("Starting Calibration.", "calibrating"),
        ("  Calibrated batch 3 in 0.1 seconds.", "calibrating"),
        ("  Post Processing Calibration data in 1.5 seconds.", "searching thresholds"),
        ("Reading Calibration Cache for calibrator: EntropyCalibration2", "reading the table"),
    ],
)
def test_phases_of_a_calibration(text: str, phase: str) -> None:
    assert heard([("INFO", text)])[1] == [phase]


def test_an_error_about_a_phase_is_no_phase() -> None:
    messages, phases = heard([("ERROR", "Calibrated batch failed")])
    assert (messages.errors, phases) == (("Calibrated batch failed",), [])


def test_the_fastest_kernel_of_each_precision_counts() -> None:
    tuning = KernelTimes()
    for precision, times in {"Float": ["0.3", "0.2", "0.25"], "Int8": ["1e-3", "inf"]}.items():
        for time in times:
            tuning.take(COMBINATION.format(f"{precision}(3,2)"))
            tuning.take(timed("/a + /b", time))
    assert tuning.fastest == {"/a + /b": {"FP32": 0.2, "INT8": 0.001}}
    assert tuning.has_time("/a + /b", "INT8")
    assert not tuning.has_time("/a + /b", "BF16")
    assert not tuning.has_time("/c", "INT8")
    assert tuning.summary("/c") is None


def test_a_kernel_that_could_not_run_is_none() -> None:
    tuning = KernelTimes()
    tuning.take(COMBINATION.format("Int8(3,2)"))
    tuning.take(timed("/a", "inf"))
    assert not tuning.has_time("/a", "INT8")


def test_what_is_no_kernel_of_the_network_is_left_out() -> None:
    tuning = KernelTimes()
    tuning.take(timed("/a", "0.1"))
    tuning.take(COMBINATION.format("Int8(3,2)"))
    tuning.take(timed("Optimizer Reformat(image -> <out>)", "0.1", "Reformat[0x80000006]"))
    tuning.take("*************** Autotuning Reformat: Float(3,2) -> Half(2,3) ***************")
    tuning.take(timed("/b", "0.1"))
    tuning.take(COMBINATION.format("Int32(3,2)"))
    tuning.take(timed("/c", "0.1"))
    tuning.take("*************** Autotuning format combination:  -> Float(3,2) ***************")
    tuning.take(timed("/d", "0.1"))
    assert tuning.fastest == {}


def test_names_with_brackets_are_read_whole() -> None:
    tuning = KernelTimes()
    tuning.take(COMBINATION.format("Int8(3,2)"))
    tuning.take(timed("/0/Conv + PWN(/0/Clip)", "0.1"))
    tuning.take(timed("{ForeignNode[a (1)...b]}", "0.2", "Myelin[0x80000023]"))
    assert tuning.fastest == {"/0/Conv + PWN(/0/Clip)": {"INT8": 0.1}, "{ForeignNode[a (1)...b]}": {"INT8": 0.2}}


class ILogger:
    """TensorRT's, of which only the base is needed."""


class Stand:
    """A module `tensorrt`."""

    ILogger = ILogger


WARNING = "Severity.WARNING"
"""As the binding's enumeration prints itself."""


def test_there_is_one_logger_and_all_who_listen_hear_everything() -> None:
    first, second = Messages(), Messages()
    with capture_messages(Stand, first) as log:
        assert isinstance(log, ILogger)
        assert log is logger(Stand)
        log.log(WARNING, "alone")
        with capture_messages(Stand, second) as same:
            assert same is log
            log.log(WARNING, "both")
        log.log(WARNING, "alone again")
    log.log(WARNING, "nobody")
    assert first.warnings == ("alone", "both", "alone again")
    assert second.warnings == ("both",)


def test_whoever_came_first_may_leave_first() -> None:
    """Builds in two threads end in any order."""
    first, second = Messages(), Messages()
    one, two = capture_messages(Stand, first), capture_messages(Stand, second)
    log = one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    log.log(WARNING, "later")
    two.__exit__(None, None, None)
    log.log(WARNING, "nobody")
    assert (first.warnings, second.warnings) == ((), ("later",))


def test_an_error_ends_the_listening() -> None:
    messages = Messages()
    with pytest.raises(ZeroDivisionError), capture_messages(Stand, messages):
        _ = 1 // 0
    logger(Stand).log(WARNING, "nobody")
    assert messages.warnings == ()
