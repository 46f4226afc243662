"""Checkpoints in S3 or what speaks like it: an object a checkpoint, and an empty one that lists it by run and agent.

The object is written before what lists it and deleted after it, so that a list never names what cannot be read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from services.orchestrator.checkpoints.store import CheckpointFilter, Data, page_of
from shared.errors import Unavailable
from shared.paging import Page

_ABSENT: Final = ("NoSuchKey", "404", "NotFound")
_TRIES: Final = 3
_TIMEOUT_SECONDS: Final = 10


class S3CheckpointStore:
    """A bucket and a prefix. Credentials and region come as boto3 finds them; `endpoint` is another server than AWS."""

    def __init__(self, bucket: str, *, prefix: str = "checkpoints/", endpoint: str | None = None) -> None:
        config = Config(
            retries={"max_attempts": _TRIES}, connect_timeout=_TIMEOUT_SECONDS, read_timeout=_TIMEOUT_SECONDS
        )
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, config=config)
        self._bucket = bucket
        self._prefix = prefix

    async def save(self, tenant: str, checkpoint_id: str, data: Data) -> None:
        await _apart(self._save, tenant, checkpoint_id, data)

    async def load(self, tenant: str, checkpoint_id: str) -> Data | None:
        found: Data | None = await _apart(self._load, tenant, checkpoint_id)
        return found

    async def every(self, tenant: str, chosen: CheckpointFilter, *, page: Page) -> Sequence[Data]:
        found: list[Data] = await _apart(self._every, tenant, chosen, page)
        return found

    async def delete(self, tenant: str, checkpoint_id: str) -> bool:
        gone: bool = await _apart(self._delete, tenant, checkpoint_id)
        return gone

    def _save(self, tenant: str, checkpoint_id: str, data: Data) -> None:
        body = json.dumps(data).encode()
        self._client.put_object(
            Bucket=self._bucket, Key=self._object(tenant, checkpoint_id), Body=body, ContentType="application/json"
        )
        self._client.put_object(Bucket=self._bucket, Key=self._entry(tenant, checkpoint_id, data), Body=b"")

    def _load(self, tenant: str, checkpoint_id: str) -> Data | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._object(tenant, checkpoint_id))
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        data: Data = json.loads(answer["Body"].read())
        return data

    def _every(self, tenant: str, chosen: CheckpointFilter, page: Page) -> list[Data]:
        under = f"{self._prefix}{quote(tenant, safe='')}/by-run/"
        if chosen.run_id:
            under += f"{quote(chosen.run_id, safe='')}/"
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=under)
        keys = [entry["Key"].rsplit("/", 2) for part in pages for entry in part.get("Contents", ())]
        fitting = [name for _, agent, name in keys if chosen.fits_agents(unquote(agent))]
        found = (self._load(tenant, name) for name in page_of(fitting, page))
        return [data for data in found if data is not None]

    def _delete(self, tenant: str, checkpoint_id: str) -> bool:
        data = self._load(tenant, checkpoint_id)
        if data is None:
            return False
        self._client.delete_object(Bucket=self._bucket, Key=self._entry(tenant, checkpoint_id, data))
        self._client.delete_object(Bucket=self._bucket, Key=self._object(tenant, checkpoint_id))
        return True

    def _object(self, tenant: str, checkpoint_id: str) -> str:
        return f"{self._prefix}{quote(tenant, safe='')}/by-id/{checkpoint_id}.json"

    def _entry(self, tenant: str, checkpoint_id: str, data: Data) -> str:
        run, agent = quote(data["run_id"], safe=""), quote(data["agent_name"], safe="")
        return f"{self._prefix}{quote(tenant, safe='')}/by-run/{run}/{agent}/{checkpoint_id}"


async def _apart(work: Any, *given: object) -> Any:
    """In a thread: boto3 waits."""
    try:
        return await asyncio.to_thread(work, *given)
    except ClientError as error:
        refused = str(error.response["Error"]["Code"])
        raise Unavailable("the object store refuses", dependency="s3", cause=refused) from error
    except BotoCoreError as error:
        raise Unavailable("the object store cannot be asked", dependency="s3", cause=type(error).__name__) from error
