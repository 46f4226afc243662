"""What makes pictures, speech and transcripts, whoever does it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from services.inference.purchase import Spent
from services.inference.route import Model


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """What to picture. Empty texts are left to the model."""

    prompt: str
    count: int = 1
    size: str = ""
    quality: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, and the prompt as the provider rewrote it."""

    media_type: str
    data: bytes
    revised_prompt: str = ""


@dataclass(frozen=True, slots=True)
class TranscriptionOrder:
    """What to listen to."""

    audio: bytes
    media_type: str
    language: str = ""
    prompt: str = ""
    segments: bool = False
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a transcript."""

    start: timedelta
    end: timedelta
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard."""

    text: str
    language: str = ""
    duration: timedelta | None = None
    segments: Sequence[Segment] = ()


@dataclass(frozen=True, slots=True)
class SpeechOrder:
    """What to say, and how. A speed of 0 is the model's own."""

    text: str
    voice: str
    format: str = "mp3"
    speed: float = 0.0
    instructions: str = ""


Order = ImageOrder | TranscriptionOrder | SpeechOrder


class MediaMaker(Protocol):
    """One provider. Raises the errors of services.inference.errors; what it used comes last, or not at all."""

    def images(self, model: Model, order: ImageOrder) -> AsyncGenerator[Picture | Spent, None]:
        """The pictures."""

    def transcript(self, model: Model, order: TranscriptionOrder) -> AsyncGenerator[Transcript | Spent, None]:
        """One transcript."""

    def speech(self, model: Model, order: SpeechOrder) -> AsyncGenerator[bytes | Spent, None]:
        """The sound as it comes. Closing the iterator closes the call."""
