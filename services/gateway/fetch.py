"""Small documents from elsewhere, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from services.gateway.errors import IssuerUnavailable
from services.gateway.issuers import Fetch

_LARGEST: Final = 256 * 1024
_OK: Final = 200


def fetch_json(session: aiohttp.ClientSession) -> Fetch:
    """Fetches a JSON object of at most 256 KiB without following redirects. Raises IssuerUnavailable."""

    async def fetch(url: str) -> Mapping[str, Any]:
        try:
            async with session.get(url, allow_redirects=False) as answer:
                body = await answer.content.read(_LARGEST + 1)
                status = answer.status
            found = json.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise IssuerUnavailable(f"{url} gives no JSON: {type(error).__name__}", dependency="issuer") from error
        if status != _OK or len(body) > _LARGEST or not isinstance(found, dict):
            raise IssuerUnavailable(f"{url} answers {status} and no object", dependency="issuer")
        return found

    return fetch
