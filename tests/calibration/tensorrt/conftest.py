"""Every test of this folder is watched by `nothing_hangs_and_all_threads_end`."""

from tests.support.threads import nothing_hangs_and_all_threads_end

__all__ = ["nothing_hangs_and_all_threads_end"]
