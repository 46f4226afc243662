"""What a document is to whoever reads it or has it read: its text, its limits, and why there may be none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Problem(StrEnum):
    """Why a document has no text for us."""

    DAMAGED = "damaged"
    ENCRYPTED = "encrypted"
    NO_TEXT = "no_text"
    TOO_LARGE_INSIDE = "too_large_inside"
    TOO_SLOW = "too_slow"
    UNKNOWN_KIND = "unknown_kind"


class Unreadable(Exception):
    """The document has no text for us."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.value)
        self.problem = problem


class DocumentKind(StrEnum):
    PDF = "pdf"
    DOCX = "docx"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a document may be inside; what is longer is cut at the end and marked."""

    part_bytes: int = 64 * 1024 * 1024  # unpacked, of one part of a DOCX
    pages: int = 2000
    characters: int = 2_000_000


@dataclass(frozen=True, slots=True)
class Document:
    """The text, page after page. A DOCX has no pages before it is laid out: 0."""

    kind: DocumentKind
    text: str
    pages: int
    truncated: bool
