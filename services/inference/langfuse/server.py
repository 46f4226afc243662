"""One Langfuse project over HTTP: basic auth, deadlines, and failures told apart by what to do about them."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import aiohttp
from yarl import URL

_TOO_MANY: Final = 429
_TIMEOUT: Final = 408
_SERVER: Final = 500


class Passing(Exception):
    """Langfuse cannot be reached or is overloaded: try again, not before `after` if it says so."""

    def __init__(self, problem: str, after: timedelta | None = None) -> None:
        super().__init__(problem)
        self.after = after


class Refused(Exception):
    """Langfuse will not take this request, however often it is sent."""

    def __init__(self, status: int) -> None:
        super().__init__(f"Langfuse answered {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Project:
    """Where a project is and how it is entered. The secret is read for every call: it may be rotated."""

    url: str
    public_key: str
    secret_key: Callable[[], str]
    timeout: timedelta = timedelta(seconds=10)


class LangfuseServer:
    """Calls of one project, over a pooled session shared by all."""

    def __init__(self, project: Project, session: aiohttp.ClientSession) -> None:
        self._project = project
        self._session = session

    async def post(self, path: str, body: bytes) -> bytes:
        """The answer's body. Raises Passing, Refused."""
        return await self._call("POST", path, data=io.BytesIO(body))

    async def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """The answer's body. Raises Passing, Refused."""
        return await self._call("GET", path, query=query)

    async def _call(self, method: str, path: str, *, query: Mapping[str, str] | None = None, **given: Any) -> bytes:
        project = self._project
        url = URL(f"{project.url.rstrip('/')}{path}", encoded=True).with_query(query)
        try:
            credentials = base64.b64encode(f"{project.public_key}:{project.secret_key()}".encode()).decode()
            headers = {"authorization": f"Basic {credentials}", "content-type": "application/json"}
            async with asyncio.timeout(project.timeout.total_seconds()):
                async with self._session.request(method, url, headers=headers, **given) as answer:
                    said = await answer.read()
        except TimeoutError as error:
            raise Passing("Langfuse did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Passing(f"Langfuse cannot be reached: {type(error).__name__}") from error
        if answer.status in (_TOO_MANY, _TIMEOUT) or answer.status >= _SERVER:
            raise Passing(f"Langfuse answered {answer.status}", _after(answer))
        if not answer.ok:
            raise Refused(answer.status)
        return said


def _after(answer: aiohttp.ClientResponse) -> timedelta | None:
    try:
        return max(timedelta(), timedelta(seconds=float(answer.headers.get("retry-after", ""))))
    except (ValueError, OverflowError):
        return None
