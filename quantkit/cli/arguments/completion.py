"""Values for completion in the shell, from an option's placeholder: `on|off|both`, `PRESET|FILE.toml`, `PATH`.

Every command of the program gets them (`Verb`), so that a new option needs nothing but its placeholder, or, where that
is a word such as `NAME`, an entry in `REGISTRIES`. Values are proposals: forms with parameters, such as
`percentile:99.9` and `module:callable`, are checked by the verbs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import click
from click.shell_completion import CompletionItem

FILES = re.compile("(PATH|FILE|DIR|MODEL|ENGINE|TABLE|STATS|RUN|SAVED_MODEL|A|B)([.][a-z]+)?")
"""Words of placeholders that stand for files and folders."""
LITERAL = re.compile("[a-z0-9][a-z0-9.-]*")


def preset_names() -> Iterable[str]:
    """Return the presets of preprocessing."""
    from quantkit.preprocess import PRESETS

    return PRESETS


def rule_names() -> Iterable[str]:
    """Return the calibration methods, one that takes a parameter with its usual one."""
    from quantkit.rules.registry import rule_kinds

    return [kind.usage for kind in rule_kinds().values()]


def metric_names() -> Iterable[str]:
    """Return the metrics that are built in."""
    from quantkit.metrics.registry import built_in_metrics

    return [name for metric in built_in_metrics() for name in metric.examples]


def repair_names() -> Iterable[str]:
    """Return the repairs, and `none`."""
    from quantkit.repairs.registry import REPAIR_NAMES

    return [*REPAIR_NAMES, "none"]


def algorithm_names() -> Iterable[str]:
    """Return the calibrators of TensorRT."""
    from quantkit.values import Algorithm

    return [algorithm.value for algorithm in Algorithm]


def precision_names() -> Iterable[str]:
    """Return the precisions of engines."""
    from quantkit.backends.tensorrt.options import Precision

    return [precision.value for precision in Precision]


def backend_choices() -> Iterable[str]:
    """Return the backends that are there, and `auto`."""
    from quantkit.backends.session import backend_names

    return backend_names()


def provider_names() -> Iterable[str]:
    """Return the execution providers of the default backend."""
    from quantkit.backends.session import default_backend

    return default_backend().providers


def architecture_names() -> Iterable[str]:
    """Return the architectures of GPUs that TensorRT-RTX compiles for, and `all`."""
    from quantkit.backends.tensorrt_rtx.architectures import ARCHITECTURES

    return [*ARCHITECTURES, "all"]


def gpu_names() -> Iterable[str]:
    """Return the GPUs whose times can be estimated."""
    from quantkit.compiling.gpus import GPUS

    return GPUS


REGISTRIES: Mapping[str, Callable[[], Iterable[str]]] = {
    "--rule": rule_names,
    "--metric": metric_names,
    "--repair": repair_names,
    "--algorithm": algorithm_names,
    "--precision": precision_names,
    "--preprocess": preset_names,
    "--backend": backend_choices,
    "--provider": provider_names,
    "--for": architecture_names,
    "--gpus": gpu_names,
}
"""Option → the names that it takes. Loading a registry takes time, so it is done when the shell asks."""


class CompletedText(click.types.StringParamType):
    """A text with proposals for the shell. files: whether it may name a file. several: values separated by commas."""

    def __init__(self, values: Callable[[], Iterable[str]], *, files: bool, several: bool) -> None:
        self._values, self._files, self._several = values, files, several

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the values that begin as the text does, behind the values before its last comma."""
        del ctx, param
        before, comma, last = incomplete.rpartition(",") if self._several else ("", "", incomplete)
        used = set(before.split(","))
        found = [
            CompletionItem(f"{before}{comma}{value}")
            for value in self._values()
            if value.startswith(last) and value not in used
        ]
        return [*found, CompletionItem(incomplete, type="file")] if self._files and not comma else found


def add_completion(parameter: click.Parameter) -> None:
    """Give a parameter that takes any text the proposals that its placeholder, or its name, stands for."""
    if type(parameter.type) is not click.types.StringParamType or not parameter.metavar:
        return
    words = re.split("[|,]", parameter.metavar.strip("[]").rstrip("…"))
    literal = [word for word in words if LITERAL.fullmatch(word)]
    registry = next((REGISTRIES[option] for option in parameter.opts if option in REGISTRIES), None)
    files = any(FILES.fullmatch(word) for word in words)
    if registry is not None or literal or files:
        parameter.type = CompletedText(
            lambda: dict.fromkeys((*(registry() if registry else ()), *literal)),
            files=files,
            several="," in parameter.metavar and not files,
        )
