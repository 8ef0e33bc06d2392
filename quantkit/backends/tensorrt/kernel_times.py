"""The times that TensorRT's tuner measured, read from its verbose log: they explain the precision of a layer.

    *************** Autotuning format combination: Int8(1024,1024:32,32,1) -> Half(…) ***************
    --------------- Timing Runner: conv + relu (CaskConvolution[0x80000009])
    conv + relu (CaskConvolution[0x80000009]) profiling completed in 0.01 seconds. Fastest Tactic: 0x… Time: 0.0049

TensorRT compares whole paths, including reformatting between formats; the fastest kernel of a layer alone is therefore
not always the chosen one.
"""

from __future__ import annotations

import re

COMBINATION = re.compile(r"Autotuning format combination: ([A-Za-z0-9]+)\(")
FASTEST = re.compile(r"^(.*) \([A-Za-z0-9]+\[0x[0-9a-f]+\]\) profiling completed .* Time: ([0-9.e+-]+|inf)")
NAMES = {"Float": "FP32", "Half": "FP16", "Int8": "INT8", "BFloat16": "BF16", "FP8": "FP8"}
REFORMAT = "Optimizer Reformat("


class KernelTimes:
    """Milliseconds of the fastest kernel, by layer and by precision of its input."""

    def __init__(self) -> None:
        self.fastest: dict[str, dict[str, float]] = {}
        self._precision: str | None = None

    def take(self, text: str) -> None:
        """Take one verbose message."""
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

    def summary(self, layer: str) -> str | None:
        """Return the times of a layer, `FP16 0.0040 ms, INT8 0.0050 ms`; None if nothing was timed for it."""
        times = self.fastest.get(layer)
        if not times:
            return None
        return ", ".join(f"{name} {time:.4f} ms" for name, time in sorted(times.items(), key=lambda item: item[1]))

    def has_time(self, layer: str, precision: str) -> bool:
        """Return True if a kernel of that precision was timed for a layer."""
        return precision in self.fastest.get(layer, {})
