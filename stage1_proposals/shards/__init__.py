"""The shard format: schema, writer, reader, verify. Imports h5py, numpy and pycocotools only."""

from stage1_proposals.shards.clusters import read_centroids, write_centroids, write_clusters
from stage1_proposals.shards.reader import ShardReader
from stage1_proposals.shards.schema import ImageRecord, ShardError, shard_file_name, to_columns
from stage1_proposals.shards.shard_set import MANIFEST, ShardSet, read_manifest, write_manifest
from stage1_proposals.shards.verify import verify_shard
from stage1_proposals.shards.writer import write_shard

__all__ = [
    "MANIFEST",
    "ImageRecord",
    "ShardError",
    "ShardReader",
    "ShardSet",
    "read_centroids",
    "read_manifest",
    "shard_file_name",
    "to_columns",
    "verify_shard",
    "write_centroids",
    "write_clusters",
    "write_manifest",
    "write_shard",
]
