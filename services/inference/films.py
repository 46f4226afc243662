"""Films in a prompt, as the model that is asked can take them: whole, or as pictures with their times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from services.inference.catalog import Ability
from services.inference.providers.contract import Film, Media, Message, ModelCall, Part, Text


def can_watch(call: ModelCall, abilities: frozenset[Ability]) -> bool:
    """Whether a model of these abilities can take every film of the call."""
    return all(_whole(film, abilities) or _in_pictures(film, abilities) for film in _films(call))


def shown(call: ModelCall, abilities: frozenset[Ability]) -> ModelCall:
    """The call with its films as such a model takes them."""
    if not any(_films(call)):
        return call
    return replace(call, messages=tuple(_message(message, abilities) for message in call.messages))


def _films(call: ModelCall) -> Iterator[Film]:
    return (part for message in call.messages for part in message.parts if isinstance(part, Film))


def _whole(film: Film, abilities: frozenset[Ability]) -> bool:
    return film.media is not None and Ability.VIDEO in abilities


def _in_pictures(film: Film, abilities: frozenset[Ability]) -> bool:
    return bool(film.frames) and Ability.IMAGE in abilities


def _message(message: Message, abilities: frozenset[Ability]) -> Message:
    parts = [taken for part in message.parts for taken in _taken(part, abilities)]
    return replace(message, parts=tuple(parts))


def _taken(part: Part, abilities: frozenset[Ability]) -> Iterator[Part]:
    if not isinstance(part, Film):
        yield part
    elif part.media is not None and _whole(part, abilities):
        yield part.media
    else:
        for frame in part.frames:
            yield Text(f"[{part.name or 'film'}, {frame.at.total_seconds():.1f} s]")
            yield Media(frame.media.kind, frame.media.media_type, frame.media.data, frame.media.url)
