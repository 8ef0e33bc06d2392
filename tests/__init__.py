"""All tests. Workers of pytest have a core each: linear algebra in more threads only waits for itself."""

import os

for library in ("OPENBLAS", "OMP", "MKL"):  # which read it as they are loaded, here and in programs that tests start
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
