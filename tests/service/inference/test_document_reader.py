"""Documents read in a process of their own: what comes out, and what a hostile one costs."""

from __future__ import annotations

import asyncio
import time
import zlib
from datetime import timedelta
from pathlib import Path

import pytest

from services.inference.document import DocumentKind, Limits
from services.inference.document_reader import DocumentReader, DocumentUnreadable
from shared.errors import FieldTooLong
from tests.support.documents import docx, locked, paragraph, pdf, pdf_of, zipped

FIELD = "messages[0].content[1].document"


async def refused(data: bytes, reader: DocumentReader | None = None) -> DocumentUnreadable:
    with pytest.raises(DocumentUnreadable) as raised:
        await (reader or DocumentReader()).read(data, field=FIELD)
    assert (raised.value.reason_name, raised.value.field) == ("DOCUMENT_UNREADABLE", FIELD)
    return raised.value


async def test_both_kinds_are_read_and_the_loop_goes_on() -> None:
    reader = DocumentReader()
    reading = asyncio.gather(
        reader.read(pdf("A page of Grüße", "and one more"), field=FIELD),
        reader.read(docx(paragraph("A paragraph 💡")), field=FIELD),
    )
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0.001)
    one, other = await reading
    assert (one.kind, one.text, one.pages) == (DocumentKind.PDF, "A page of Grüße\n\nand one more", 2)
    assert (other.kind, other.text, other.truncated) == (DocumentKind.DOCX, "A paragraph 💡", False)
    assert turns > 20


async def test_its_limits_go_with_the_document() -> None:
    found = await DocumentReader(limits=Limits(characters=4)).read(pdf("abcdefgh"), field=FIELD)
    assert (found.text, found.truncated) == ("abcd", True)


async def test_a_document_without_text_for_us_is_refused_with_the_problem() -> None:
    assert (await refused(locked(pdf("secret"), user="x"))).facts == {"problem": "encrypted"}
    assert (await refused(b"neither")).facts == {"problem": "unknown_kind"}


async def test_a_document_over_the_size_is_not_even_begun() -> None:
    with pytest.raises(FieldTooLong) as raised:
        await DocumentReader().read(bytes(20 * 1024 * 1024 + 1), field=FIELD)
    assert (raised.value.field, raised.value.facts["limit"]) == (FIELD, str(20 * 1024 * 1024))


@pytest.mark.heavy
async def test_bombs_cost_no_more_than_their_limits() -> None:
    gigabyte = zlib.compress(bytes(200 * 1024 * 1024), 9)
    twice = zlib.compress(gigabyte, 9)
    bombs = [
        zipped({"word/document.xml": b"<a>" + b" " * 200_000_000}),
        pdf_of([b" " * 200_000_000]),
        pdf_of([twice]),
    ]
    began = time.perf_counter()
    for bomb in bombs:
        assert len(bomb) < 1_000_000
        problem = (await refused(bomb)).facts["problem"]
        assert problem in ("too_large_inside", "damaged", "no_text")
    assert time.perf_counter() - began < 60


async def test_a_document_that_takes_too_long_is_left(tmp_path: Path) -> None:
    reader = DocumentReader(timeout=timedelta(milliseconds=10))
    assert (await refused(pdf("slow"), reader)).facts == {"problem": "too_slow"}


async def test_a_caller_that_leaves_ends_the_process() -> None:
    call = asyncio.create_task(DocumentReader().read(pdf(*["many words"] * 1500), field=FIELD))
    children = Path("/proc/self/task").glob("*/children")
    while not any(path.read_text().strip() for path in children):
        await asyncio.sleep(0.005)
        children = Path("/proc/self/task").glob("*/children")
    call.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await call
