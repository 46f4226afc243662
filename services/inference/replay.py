"""Record and replay: a provider's answers kept as files, one a call, named by the SHA-256 of the canonical call.

Strict replay answers from files alone and says what the nearest recording was when there is none; permissive replay
asks the provider then, and records. Same call, same file, same bytes.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from services.inference.canonical import canonical, digest
from services.inference.errors import ReplayMissed
from services.inference.providers.contract import Chunk, FinishReason, ModelCall, Provider, ToolDelta, Usage
from shared.settings import BadSetting

VERSION: Final = 1
_SHOWN: Final = 2000
_CANDIDATES: Final = 500


class ReplayMode(StrEnum):
    OFF = "off"
    RECORD = "record"
    STRICT = "strict"
    PERMISSIVE = "permissive"


class RecordingInvalid(BadSetting):
    """A file of the cassette is not a recording of this version. Says which and why."""

    setting = "AGENTNET_INFERENCE_REPLAY_FOLDER"


class Strict(BaseModel):
    """Part of a recording: nothing in it is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedTool(Strict):
    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class RecordedUsage(Strict):
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    audio_input_tokens: int = 0


class RecordedChunk(Strict):
    text: str = ""
    token_count: int = 0
    finish_reason: FinishReason | None = None
    usage: RecordedUsage | None = None
    reasoning: str = ""
    tools: tuple[RecordedTool, ...] = ()

    @classmethod
    def of(cls, chunk: Chunk) -> RecordedChunk:
        return cls.model_validate(
            {
                "text": chunk.text,
                "token_count": chunk.token_count,
                "finish_reason": chunk.finish_reason,
                "usage": _fields(chunk.usage) if chunk.usage else None,
                "reasoning": chunk.reasoning,
                "tools": tuple(_fields(tool) for tool in chunk.tools),
            }
        )

    def chunk(self) -> Chunk:
        return Chunk(
            text=self.text,
            token_count=self.token_count,
            finish_reason=self.finish_reason,
            usage=Usage(**self.usage.model_dump()) if self.usage else None,
            reasoning=self.reasoning,
            tools=tuple(ToolDelta(**tool.model_dump()) for tool in self.tools),
            recorded=True,
        )


class Recording(Strict):
    """One file: what was asked; what was answered is its form's."""

    version: Literal[1]
    digest: str
    request: dict[str, Any]


class TextRecording(Recording):
    """A turn of a model."""

    chunks: tuple[RecordedChunk, ...]


R = TypeVar("R", bound=Recording)


class Cassette(Generic[R]):
    """A folder of recordings of one form, all validated when it is opened."""

    def __init__(self, folder: Path, form: type[R]) -> None:
        self._folder = folder
        self._form = form
        self._recordings: dict[str, R] = {}

    def load(self) -> int:
        """Reads every file; how many there are. Raises RecordingInvalid."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.json")):
            recording = _read(path, self._form)
            self._recordings[recording.digest] = recording
        return len(self._recordings)

    def find(self, request: dict[str, Any]) -> R | None:
        return self._recordings.get(digest(request))

    def keep(self, request: dict[str, Any], **answer: Any) -> None:
        """Writes a recording; readers see it whole or not at all."""
        recording = self._form(version=VERSION, digest=digest(request), request=request, **answer)
        path = self._folder / f"{recording.digest}.json"
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(_text(recording.model_dump(mode="json")), encoding="utf-8")
        part.replace(path)
        self._recordings[recording.digest] = recording

    def missed(self, request: dict[str, Any]) -> ReplayMissed:
        """What strict replay says: the nearest recording, and how it differs."""
        asked = _text(request)
        known = {key: _text(found.request) for key, found in list(self._recordings.items())[-_CANDIDATES:]}
        if not known:
            return ReplayMissed("nothing is recorded", digest=digest(request))
        nearest = max(known, key=lambda key: difflib.SequenceMatcher(None, known[key], asked).quick_ratio())
        lines = difflib.unified_diff(
            known[nearest].splitlines(), asked.splitlines(), "recorded", "asked", n=1, lineterm=""
        )
        difference = "\n".join(lines)[:_SHOWN]
        return ReplayMissed(
            f"no recording of this call; record it, or replay permissively. The nearest, {nearest[:12]}:\n{difference}",
            digest=digest(request),
            nearest=nearest,
            difference=difference,
        )


class ReplayingProvider:
    """A provider behind a cassette."""

    def __init__(self, inner: Provider, cassette: Cassette[TextRecording], mode: ReplayMode) -> None:
        self._inner = inner
        self._cassette = cassette
        self._mode = mode

    @property
    def name(self) -> str:
        return self._inner.name

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        found = self._cassette.find(canonical(call)) if self._mode is not ReplayMode.RECORD else None
        if found:
            for recorded in found.chunks:
                yield recorded.chunk()
            return
        if self._mode is ReplayMode.STRICT:
            raise await asyncio.to_thread(self._cassette.missed, canonical(call))
        async with aclosing(self._recorded(call)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _recorded(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        heard: list[Chunk] = []
        async with aclosing(self._inner.stream(call)) as chunks:
            async for chunk in chunks:
                heard.append(chunk)
                yield chunk
        said = tuple(RecordedChunk.of(chunk) for chunk in heard)
        await asyncio.to_thread(self._cassette.keep, canonical(call), chunks=said)  # only what ended well is kept


def _read(path: Path, form: type[R]) -> R:
    try:
        recording = form.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RecordingInvalid(f"{path.name}: {where}: {first['msg']}") from None
    if not path.stem == recording.digest == digest(recording.request):
        raise RecordingInvalid(f"{path.name}: its name, its digest and its request do not belong together")
    return recording


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
