"""Record and replay of pictures, transcripts and speech: as for text, in a folder of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import ConfigDict

from services.inference.media.contract import (
    ImageOrder,
    MediaMaker,
    Order,
    Picture,
    SpeechOrder,
    Transcript,
    TranscriptionOrder,
)
from services.inference.purchase import Spent
from services.inference.replay import Cassette, Recording, ReplayMode
from services.inference.route import Model

P = TypeVar("P", Picture, Transcript, bytes)


class MediaRecording(Recording):
    """What one call made; bytes are in base64."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    pictures: tuple[Picture, ...] = ()
    transcript: Transcript | None = None
    sound: tuple[bytes, ...] = ()

    def pieces(self) -> list[Any]:
        """As they came. Nobody was asked, so nothing is spent."""
        return [*self.pictures, *([self.transcript] if self.transcript else []), *self.sound, Spent()]


def canonical(model: Model, order: Order) -> dict[str, Any]:
    """Everything of a call that changes what is made, as JSON data."""
    asked = asdict(order)
    if isinstance(order, TranscriptionOrder):
        asked["audio"] = hashlib.sha256(order.audio).hexdigest()
    return {"kind": type(order).__name__, "model": model.remote or model.name, "bills": model.bills.value, **asked}


class ReplayingMaker:
    """A provider behind a cassette."""

    def __init__(self, inner: MediaMaker, cassette: Cassette[MediaRecording], mode: ReplayMode) -> None:
        self._inner = inner
        self._cassette = cassette
        self._mode = mode

    def images(self, model: Model, order: ImageOrder) -> AsyncGenerator[Picture | Spent, None]:
        return self._through(canonical(model, order), self._inner.images(model, order))

    def transcript(self, model: Model, order: TranscriptionOrder) -> AsyncGenerator[Transcript | Spent, None]:
        return self._through(canonical(model, order), self._inner.transcript(model, order))

    def speech(self, model: Model, order: SpeechOrder) -> AsyncGenerator[bytes | Spent, None]:
        return self._through(canonical(model, order), self._inner.speech(model, order))

    async def _through(
        self, asked: dict[str, Any], made: AsyncGenerator[P | Spent, None]
    ) -> AsyncGenerator[P | Spent, None]:
        """`made` asks the provider when it is first read, so not where there is a recording."""
        async with aclosing(made):
            found = self._cassette.find(asked) if self._mode is not ReplayMode.RECORD else None
            if found:
                for piece in found.pieces():
                    yield piece
                return
            if self._mode is ReplayMode.STRICT:
                raise await asyncio.to_thread(self._cassette.missed, asked)
            heard: list[P | Spent] = []
            async for piece in made:
                heard.append(piece)
                yield piece
            await asyncio.to_thread(self._keep, asked, heard)  # only what ended well is kept

    def _keep(self, asked: dict[str, Any], heard: list[Any]) -> None:
        self._cassette.keep(
            asked,
            pictures=tuple(piece for piece in heard if isinstance(piece, Picture)),
            transcript=next((piece for piece in heard if isinstance(piece, Transcript)), None),
            sound=tuple(piece for piece in heard if isinstance(piece, bytes)),
        )
