"""Text of PDF and DOCX bytes: what is read, and what is refused and why."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import pytest

from services.inference.document import Document, DocumentKind, Limits, Problem, Unreadable
from services.inference.documents import extract
from tests.support.documents import docx, locked, notes, paragraph, pdf, pdf_of, table, zipped

LIMITS = Limits()
PDF, DOCX = DocumentKind.PDF, DocumentKind.DOCX


@pytest.mark.parametrize("compressed", [True, False])
def test_a_pdf_is_its_pages_in_order(compressed: bool) -> None:
    data = pdf("First page, line one\nline two (Grüße)", "Second page", compressed=compressed)
    assert extract(data, LIMITS) == Document(PDF, "First page, line one\nline two (Grüße)\n\nSecond page", 2, False)


def test_a_pdf_that_is_only_locked_for_changes_is_read() -> None:
    assert extract(locked(pdf("Open to read"), user=""), LIMITS).text == "Open to read"


def test_a_docx_is_its_paragraphs_and_tables() -> None:
    body = (
        paragraph("Hello, ", "world &amp; all")
        + "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>"
        + table(["x", "y"], ["", "z"])
        + paragraph("Grüße 💡 人工")
    )
    expected = "Hello, world & all\na\tb\nc\nx\ty\n\tz\nGrüße 💡 人工"
    assert extract(docx(body), LIMITS) == Document(DOCX, expected, 0, False)


def test_a_docx_says_nothing_twice_and_nothing_that_was_deleted() -> None:
    body = (
        f"<w:p><mc:AlternateContent><mc:Choice>{paragraph('box')}</mc:Choice>"
        f"<mc:Fallback>{paragraph('box')}</mc:Fallback></mc:AlternateContent></w:p>"
        "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:instrText>PAGE</w:instrText></w:r></w:p>"
        + paragraph("end")
    )
    text = extract(docx(body), LIMITS).text
    assert text.split() == ["box", "end"]


def test_a_docx_has_its_footnotes_at_the_end() -> None:
    assert extract(docx(paragraph("main"), footnotes=notes("note")), LIMITS).text == "main\nnote"


def test_a_docx_in_many_pieces_is_read_the_same() -> None:
    rows = [[f"cell {row}", "x" * 50] for row in range(3000)]
    text = extract(docx(table(*rows)), LIMITS).text
    assert text.split("\n") == ["\t".join(row) for row in rows]


@pytest.mark.parametrize(
    ("data", "limits", "text"),
    [
        (pdf("abcdef"), Limits(characters=3), "abc"),
        (pdf("one", "two", "three"), Limits(pages=2), "one\n\ntwo"),
        (docx(paragraph("abcdef") * 3), Limits(characters=8), "abcdef\na"),
    ],
    ids=["pdf characters", "pdf pages", "docx characters"],
)
def test_what_is_too_long_is_cut_and_marked(data: bytes, limits: Limits, text: str) -> None:
    found = extract(data, limits)
    assert (found.text, found.truncated) == (text, True)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
ENTITY = docx("<w:p><w:r><w:t>&b;</w:t></w:r></w:p>", doctype=BOMB)
WHOLE = docx(paragraph("hello"))
REFUSED = {
    "nothing": (b"", Problem.UNKNOWN_KIND),
    "a text": (b"just words", Problem.UNKNOWN_KIND),
    "a zip": (zipped({"readme.txt": b"hello"}), Problem.UNKNOWN_KIND),
    "an old Office file": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), Problem.ENCRYPTED),
    "a PDF behind a password": (locked(pdf("secret"), user="x"), Problem.ENCRYPTED),
    "a PDF cut in half": (pdf("hello")[:90], Problem.DAMAGED),
    "a PDF of noise": (b"%PDF-1.7\n" + bytes(range(256)) * 8, Problem.DAMAGED),
    "a PDF without words": (pdf_of([b"0 0 100 100 re f"]), Problem.NO_TEXT),
    "a DOCX cut in half": (WHOLE[: len(WHOLE) // 2], Problem.DAMAGED),
    "a DOCX of noise": (zipped({"word/document.xml": b"\x00\x01\x02"}), Problem.DAMAGED),
    "a DOCX that does not end": (zipped({"word/document.xml": b"<a><b>"}), Problem.DAMAGED),
    "a DOCX with entities": (ENTITY, Problem.DAMAGED),
    "a DOCX packed otherwise": (docx(paragraph("hello"), method=zipfile.ZIP_BZIP2), Problem.DAMAGED),
    "a DOCX without words": (docx("<w:p/>"), Problem.NO_TEXT),
}


@pytest.mark.parametrize(("data", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_a_document_without_text_for_us_says_why(data: bytes, problem: Problem) -> None:
    with pytest.raises(Unreadable) as raised:
        extract(data, LIMITS)
    assert raised.value.problem is problem


def test_a_zip_bomb_is_left_at_the_limit() -> None:
    small = replace(LIMITS, part_bytes=1_000_000)
    with pytest.raises(Unreadable) as raised:
        extract(docx("<w:p>" + " " * 1_100_000 + "</w:p>"), small)
    assert raised.value.problem is Problem.TOO_LARGE_INSIDE


@pytest.mark.parametrize("whole", [pdf("hello", "there"), WHOLE], ids=["pdf", "docx"])
def test_a_damaged_document_is_read_or_refused_and_never_breaks(whole: bytes) -> None:
    outcomes = set()
    for place in range(0, len(whole), 11):
        for data in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            try:
                outcomes.add(extract(data, LIMITS).kind)
            except Unreadable as error:
                outcomes.add(error.problem)
    assert Problem.DAMAGED in outcomes
