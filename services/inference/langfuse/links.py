"""Prompt versions in Langfuse's own registry, so that a generation there leads to the prompt it was made from."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from services.inference.langfuse.contract import Link
from services.inference.langfuse.server import LangfuseServer, Refused
from services.inference.prompts.store import PromptVersion
from shared.clock import Clock
from shared.log import log

_PROMPTS: Final = "/api/public/v2/prompts"
_DIGEST: Final = "agentnet_digest"
_LOOK_AT: Final = 50  # versions, newest first
_NOT_FOUND: Final = 404
_ASK_AGAIN: Final = timedelta(minutes=5)


class PromptLinks:
    """Finds a version by its digest, or publishes it; knows each one it has met. No label is ever moved there."""

    def __init__(self, server: LangfuseServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._known: dict[tuple[str, str], Link] = {}
        self._refused: dict[tuple[str, str], timedelta] = {}

    async def find(self, tenant: str, prompt: PromptVersion) -> Link | None:
        """The version's link; None when Langfuse refused it within the last minutes. Raises Passing."""
        name = f"{tenant}/{prompt.name}"
        key = (name, prompt.digest)
        if key in self._known:
            return self._known[key]
        if self._clock.monotonic() < self._refused.get(key, timedelta()):
            return None
        try:
            number = await self._published(name, prompt.digest) or await self._publish(name, prompt)
        except (Refused, ValueError, LookupError, TypeError, AttributeError) as error:  # or an odd answer
            log.warning("langfuse.prompt_refused", prompt=prompt.name, error=f"{type(error).__name__}: {error}")
            self._refused[key] = self._clock.monotonic() + _ASK_AGAIN
            return None
        self._known[key] = Link(name, number)
        return self._known[key]

    async def _published(self, name: str, digest: str) -> int:
        """Langfuse's number of the version with this digest; 0 when it has none."""
        listed = json.loads(await self._server.get(_PROMPTS, {"name": name, "limit": "1"}))
        numbers: list[int] = next((one["versions"] for one in listed["data"] if one["name"] == name), [])
        for number in sorted(numbers, reverse=True)[:_LOOK_AT]:
            if (await self._config(name, number)).get(_DIGEST) == digest:
                return int(number)
        return 0

    async def _config(self, name: str, number: int) -> dict[str, Any]:
        try:
            found = json.loads(await self._server.get(f"{_PROMPTS}/{quote(name, safe='')}", {"version": str(number)}))
        except Refused as error:
            if error.status == _NOT_FOUND:  # deleted in between
                return {}
            raise
        return found["config"] if isinstance(found.get("config"), dict) else {}

    async def _publish(self, name: str, prompt: PromptVersion) -> int:
        content = prompt.content
        whole = {
            "type": "chat",
            "name": name,
            "prompt": [
                {"type": "chatmessage", "role": one.role.value, "content": one.text} for one in content.messages
            ],
            "config": {**content.config, _DIGEST: prompt.digest},
            "labels": [],
            "commitMessage": f"{prompt.name}@{prompt.number} {prompt.comment}".strip(),
        }
        answer = json.loads(await self._server.post(_PROMPTS, json.dumps(whole, ensure_ascii=False).encode()))
        return int(answer["version"])
