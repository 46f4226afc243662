"""Where checkpoints are kept, by the setting that says so."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from services.orchestrator.checkpoints.store import CheckpointStore
from services.orchestrator.checkpoints.store_file import FileCheckpointStore
from services.orchestrator.checkpoints.store_postgres import PostgresCheckpointStore
from shared.postgres import Database


def checkpoint_store(place: str, database: Database) -> CheckpointStore:
    """The store a place names: "postgres", `file:///var/checkpoints` or `s3://bucket/prefix?endpoint=http://host:9000`.

    Raises ValueError for any other.
    """
    if place == "postgres":
        return PostgresCheckpointStore(database)
    parts = urlsplit(place)
    if parts.scheme == "file" and parts.path:
        return FileCheckpointStore(Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        # boto3 is large: only a mesh that keeps checkpoints in S3 loads it.
        from services.orchestrator.checkpoints.store_s3 import S3CheckpointStore  # noqa: PLC0415

        endpoint = parse_qs(parts.query).get("endpoint", [None])[0]
        prefix = parts.path.strip("/")
        return S3CheckpointStore(parts.netloc, prefix=f"{prefix}/" if prefix else "", endpoint=endpoint)
    raise ValueError(f"checkpoints are kept in postgres, file:///folder or s3://bucket/prefix, not in {place}")
