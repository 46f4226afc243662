"""Sentences of a stream: what rules too slow for every character are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 600
_ABBREVIATED: Final = r"(?<!\b(?:Mr|Ms|Dr|St))(?<!\b(?:Mrs|Apt|Ing))(?<!\bProf)(?<!str)"
_END: Final = re.compile(rf"(?:{_ABBREVIATED}[.!?…]+[\"'”’)\]]*\s+|[。！？]+|\n+)")  # noqa: RUF001 - full-width ends of sentences


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of text, by its place in the whole."""

    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class Sentences:
    """Cuts a stream into sentences, none longer than LONGEST characters, whatever way the stream is cut."""

    def __init__(self) -> None:
        self._start = 0
        self._held = ""

    def feed(self, text: str) -> list[Sentence]:
        """The sentences that ended. One ends when what follows it has begun."""
        self._held += text
        found: list[Sentence] = []
        while (end := self._next_end()) is not None:
            found.append(self._cut(end))
        return found

    def finish(self) -> list[Sentence]:
        """What is left."""
        return [self._cut(len(self._held))] if self._held else []

    def _next_end(self) -> int | None:
        match = _END.search(self._held)
        if match and match.end() < len(self._held) and match.end() <= LONGEST:
            return match.end()
        return LONGEST if len(self._held) > LONGEST else None

    def _cut(self, end: int) -> Sentence:
        sentence = Sentence(self._start, self._held[:end])
        self._held = self._held[end:]
        self._start += end
        return sentence
