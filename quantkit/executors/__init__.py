"""Executors: shards of a pass run in several processes, and their results come as they are ready.

Placement     where shards run: processes on this machine, or actors of a Ray cluster
ShardTask     what a worker does with a shard; it travels to the worker, and loads the network there once
run_shards    hands out shards, and hands them out again where a worker died

An executor knows nothing of calibration or evaluation, and keeps nothing: results are bytes, which the caller writes.
"""

from quantkit.executors.dispatch import run_shards
from quantkit.executors.placement import Placement
from quantkit.executors.task import ShardResult, ShardTask

__all__ = ["Placement", "ShardResult", "ShardTask", "run_shards"]
