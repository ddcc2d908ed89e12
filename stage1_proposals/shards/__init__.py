"""The shard format: schema, writer, reader, verification. Imports h5py, numpy and pycocotools only."""

from stage1_proposals.shards.manifest import MANIFEST, BackboneRecord, ClusterRecord, Manifest, Request, ShardEntry
from stage1_proposals.shards.reader import ShardReader, read_centroids
from stage1_proposals.shards.schema import ImageRecord, ShardError, shard_file_name, to_columns
from stage1_proposals.shards.shard_set import ShardSet
from stage1_proposals.shards.verify import verify_set, verify_shard
from stage1_proposals.shards.writer import write_centroids, write_clusters, write_shard

__all__ = [
    "MANIFEST",
    "BackboneRecord",
    "ClusterRecord",
    "ImageRecord",
    "Manifest",
    "Request",
    "ShardEntry",
    "ShardError",
    "ShardReader",
    "ShardSet",
    "read_centroids",
    "shard_file_name",
    "to_columns",
    "verify_set",
    "verify_shard",
    "write_centroids",
    "write_clusters",
    "write_shard",
]
