"""The times that TensorRT's tuner measured, read from its verbose log: why a layer became what it is.

    *************** Autotuning format combination: Int8(1024,1024:32,32,1) -> Half(…) ***************
    --------------- Timing Runner: conv + relu (CaskConvolution[0x80000009])
    conv + relu (CaskConvolution[0x80000009]) profiling completed in 0.01 seconds. Fastest Tactic: 0x… Time: 0.0049

TensorRT compares whole paths, reformats between formats included, so that the fastest kernel of a layer alone need not
be the one that is chosen.
"""

from __future__ import annotations

import re

COMBINATION = re.compile(r"Autotuning format combination: ([A-Za-z0-9]+)\(")
FASTEST = re.compile(r"^(.*) \([A-Za-z0-9]+\[0x[0-9a-f]+\]\) profiling completed .* Time: ([0-9.e+-]+|inf)")
NAMES = {"Float": "FP32", "Half": "FP16", "Int8": "INT8", "BFloat16": "BF16", "FP8": "FP8"}
REFORMAT = "Optimizer Reformat("


class KernelTimes:
    """Layer → precision of its input → milliseconds of its fastest kernel."""

    def __init__(self) -> None:
        self.fastest: dict[str, dict[str, float]] = {}
        self._precision: str | None = None

    def take(self, text: str) -> None:
        """One verbose message."""
        if "Autotuning" in text:
            match = COMBINATION.search(text)
            self._precision = NAMES.get(match[1]) if match else None
        elif "profiling completed" in text and self._precision:
            match = FASTEST.match(text)
            if match and not match[1].startswith(REFORMAT):
                if match[2] == "inf":  # a kernel that could not run
                    return
                times = self.fastest.setdefault(match[1], {})
                time = float(match[2])
                times[self._precision] = min(time, times.get(self._precision, time))

    def compared(self, layer: str) -> str | None:
        """`FP16 took 0.004 ms, INT8 0.005 ms`; None where nothing was timed for the layer."""
        times = self.fastest.get(layer)
        if not times:
            return None
        return ", ".join(f"{name} {time:.4f} ms" for name, time in sorted(times.items(), key=lambda item: item[1]))

    def timed(self, layer: str, precision: str) -> bool:
        """Whether a kernel of that precision was timed for a layer."""
        return precision in self.fastest.get(layer, {})
