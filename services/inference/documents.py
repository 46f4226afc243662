"""The text of PDF and DOCX documents. Pure and slow: services.inference.document_reader runs it apart, with limits."""

from __future__ import annotations

import io
import json
import logging
import re
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final
from xml.parsers import expat

from pypdf import PdfReader
from pypdf.errors import (
    DependencyError,
    DeprecationError,
    FileNotDecryptedError,
    LimitReachedError,
    PyPdfError,
)

from services.inference.document import Document, DocumentKind, Limits, Problem, Unreadable

_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # of encrypted and of old Office files
_ZIP: Final = b"PK\x03\x04"
_PDF_WITHIN: Final = 1024
_MAIN: Final = "word/document.xml"
_NOTES: Final = ("word/footnotes.xml", "word/endnotes.xml")
_WORDS: Final = (
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "http://purl.oclc.org/ooxml/wordprocessingml/main",
)
_FALLBACK: Final = "http://schemas.openxmlformats.org/markup-compatibility/2006 Fallback"
_SPACES: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}
_MANY_BREAKS: Final = re.compile(r"\n{3,}")


def kind_of(data: bytes) -> DocumentKind:
    """What the bytes are, whatever their name says. Raises Unreadable."""
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return DocumentKind.PDF
    if data.startswith(_ZIP):
        return DocumentKind.DOCX
    raise Unreadable(Problem.ENCRYPTED if data.startswith(_OLE) else Problem.UNKNOWN_KIND)


def extract(data: bytes, limits: Limits) -> Document:
    """The document's text. Raises Unreadable."""
    kind = kind_of(data)
    pages, parts = _pdf(data, limits) if kind is DocumentKind.PDF else (0, _docx(data, limits))
    text, truncated = _bounded(parts, limits.characters)
    if not text:
        raise Unreadable(Problem.NO_TEXT)
    return Document(kind, text, min(pages, limits.pages), truncated or pages > limits.pages)


def _bounded(parts: Iterator[str], limit: int) -> tuple[str, bool]:
    """The parts as one text of at most `limit` characters, read no further than needed."""
    kept: list[str] = []
    length = 0
    for part in parts:
        kept.append(part)
        length += len(part)
        if length > limit:
            return "".join(kept)[:limit].strip(), True
    return _MANY_BREAKS.sub("\n\n", "".join(kept)).strip(), False


def _pdf(data: bytes, limits: Limits) -> tuple[int, Iterator[str]]:
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):  # the empty password opens what is only locked for changes
            raise Unreadable(Problem.ENCRYPTED)
        return len(reader.pages), _pages(reader, limits)
    except (FileNotDecryptedError, DependencyError) as error:
        raise Unreadable(Problem.ENCRYPTED) from error
    except (PyPdfError, *_FAULTS) as error:
        raise Unreadable(Problem.DAMAGED) from error


def _pages(reader: PdfReader, limits: Limits) -> Iterator[str]:
    for place in range(min(len(reader.pages), limits.pages)):
        try:
            text = reader.pages[place].extract_text()
        except (LimitReachedError, MemoryError) as error:
            raise Unreadable(Problem.TOO_LARGE_INSIDE) from error
        except (PyPdfError, *_FAULTS) as error:
            raise Unreadable(Problem.DAMAGED) from error
        yield f"{text.strip()}\n\n"


def _docx(data: bytes, limits: Limits) -> Iterator[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if _MAIN not in names:
                raise Unreadable(Problem.UNKNOWN_KIND)
            for name in (_MAIN, *(note for note in _NOTES if note in names)):
                yield from _Text().of(_part(archive, name, limits))
    except (zipfile.BadZipFile, expat.ExpatError, *_FAULTS) as error:
        raise Unreadable(Problem.DAMAGED) from error


def _part(archive: zipfile.ZipFile, name: str, limits: Limits) -> Iterator[bytes]:
    """One part's bytes, never more than the limit whatever its header says."""
    info = archive.getinfo(name)
    if info.flag_bits & 1:
        raise Unreadable(Problem.ENCRYPTED)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without a bound
        raise Unreadable(Problem.DAMAGED)
    read = 0
    with archive.open(info) as part:
        while data := part.read(65_536):
            read += len(data)
            if read > limits.part_bytes:
                raise Unreadable(Problem.TOO_LARGE_INSIDE)
            yield data


class _Text:
    """What stands in one part of a DOCX: paragraphs as lines, table cells apart by tabs, nothing said twice."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._separator = ""  # after what was said last; a cell's end takes the place of its last paragraph's
        self._in_text = False
        self._skipping = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._said
        self._parser.StartDoctypeDeclHandler = _refuse

    def of(self, data: Iterator[bytes]) -> Iterator[str]:
        """The text as it is read."""
        for part in data:
            self._parser.Parse(part)
            yield from self._parts
            self._parts.clear()
        self._parser.Parse(b"", True)  # noqa: FBT003 - the parser's own way to end
        yield from self._parts
        yield "\n"

    def _begin(self, name: str, _attributes: object) -> None:
        self._skipping += name == _FALLBACK  # the same words again, for old readers
        word = _word(name)
        if word in _SPACES:
            self._add(_SPACES[word])
        self._in_text = word == "t"

    def _end(self, name: str) -> None:
        self._skipping -= name == _FALLBACK
        self._in_text = False
        match _word(name):
            case "p":
                self._add("")
                self._separator = "\n"
            case "tc":
                self._separator = "\t"
            case "tr":
                self._separator = "\n"

    def _said(self, text: str) -> None:
        if self._in_text:
            self._add(text)

    def _add(self, text: str) -> None:
        if not self._skipping:
            self._parts += (self._separator, text)
            self._separator = ""


def _word(name: str) -> str:
    """The local name of an element of WordprocessingML, else nothing."""
    space, _, local = name.partition(" ")
    return local if space in _WORDS else ""


def _refuse(*_: object) -> None:
    """No DOCX has a document type; its entities could grow without end."""
    raise Unreadable(Problem.DAMAGED)


# What parsers of damaged files run into.
_FAULTS: Final = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError,
    DeprecationError, struct.error, zlib.error,
)  # fmt: skip


def main() -> None:
    """The process of a DocumentReader: a document on standard input, its text or its problem on standard output."""
    limits, seconds, memory = Limits(**json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    logging.disable()  # what pypdf remarks on a file is nobody's to read
    try:
        answer = asdict(extract(sys.stdin.buffer.read(), limits))
    except Unreadable as error:
        answer = {"problem": error.problem}
    except MemoryError:
        answer = {"problem": Problem.TOO_LARGE_INSIDE}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
