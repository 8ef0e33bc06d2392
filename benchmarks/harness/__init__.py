"""What every benchmark shares: measuring a child process, describing the machine, drawing tables.

Standard library only. A child's peak memory starts from what its parent had mapped when it was
started, so the measuring process has to stay far smaller than anything that it measures.
"""
