"""Shards: one pass over data as n parts that run on their own, anywhere, and merge to what one run would have given.

Shard(3, 64)      one part of a pass: a contiguous run of its whole batches
RunIdentity       what all shards of a pass have in common, by the name that the user knows it by
ShardRecord       the shard of a file, and the run that it belongs to
"""

from quantkit.sharding.completeness import order_shards
from quantkit.sharding.record import RunIdentity, ShardRecord, record_shard
from quantkit.sharding.shard import Shard

__all__ = ["RunIdentity", "Shard", "ShardRecord", "order_shards", "record_shard"]
