"""Totals of a pass over samples that is divided into shards: their files, what makes them, and workers that do.

TotalsFormat    the kind of file that holds the totals of a shard
make_shard      runs one shard and writes its file, or reuses it
run_by_workers  runs all of them in several processes
stored_shards   yields the totals of all shards, if they are there, each once, and of one run

What the totals are is up to the verb: `evaluation` and `sensitivity` have their own.
"""

from quantkit.totals.divided_run import Division, run_by_workers
from quantkit.totals.shard_files import MadeShard, ShardMaker, damaged_totals, make_shard, shards_at, stored_shards
from quantkit.totals.tree_file import StoredTotals, TotalsFormat

__all__ = [
    "Division",
    "MadeShard",
    "ShardMaker",
    "StoredTotals",
    "TotalsFormat",
    "damaged_totals",
    "make_shard",
    "run_by_workers",
    "shards_at",
    "stored_shards",
]
