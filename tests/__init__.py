"""All tests. Workers of pytest have a core each: linear algebra in more threads only waits for itself."""

import os
import sys

for library in ("OPENBLAS", "OMP", "MKL"):  # which read it as they are loaded, here and in programs that tests start
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# Every program that a test starts would compile the package again: one to three quarters of a second each.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
