"""Small real documents, made by hand."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence

from pypdf import PdfReader, PdfWriter

_WORDS = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_COMPATIBILITY = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def pdf(*pages: str, compressed: bool = True) -> bytes:
    """A PDF of one text line a line, in Helvetica."""
    streams = [_drawn(text) for text in pages]
    return pdf_of(streams, compressed=compressed)


def pdf_of(streams: Sequence[bytes], *, compressed: bool = True) -> bytes:
    """A PDF whose pages have these content streams."""
    kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(len(streams)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(streams)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for place, stream in enumerate(streams):
        data = zlib.compress(stream, 9) if compressed else stream
        filtered = b"/Filter /FlateDecode " if compressed else b""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * place} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< %s/Length %d >>\nstream\n%s\nendstream" % (filtered, len(data), data))
    return _file(objects)


def locked(data: bytes, *, user: str) -> bytes:
    """The same PDF behind a user's password, or only locked for changes with an empty one."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt(user, "owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx(body: str, *, doctype: str = "", method: int = zipfile.ZIP_DEFLATED, **others: str) -> bytes:
    """A DOCX with this body, in WordprocessingML; `others` are further parts by their names in word/."""
    main = f'<?xml version="1.0" encoding="UTF-8"?>{doctype}<w:document {_names()}><w:body>{body}</w:body></w:document>'
    return zipped(
        {"word/document.xml": main.encode(), **{f"word/{name}.xml": text.encode() for name, text in others.items()}},
        method,
    )


def notes(text: str) -> str:
    return f"<w:footnotes {_names()}><w:footnote>{paragraph(text)}</w:footnote></w:footnotes>"


def zipped(parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def paragraph(*runs: str) -> str:
    inside = "".join(f'<w:r><w:t xml:space="preserve">{run}</w:t></w:r>' for run in runs)
    return f"<w:p>{inside}</w:p>"


def table(*rows: Sequence[str]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def _names() -> str:
    return f'xmlns:w="{_WORDS}" xmlns:mc="{_COMPATIBILITY}"'


def _drawn(text: str) -> bytes:
    shown = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in text.split("\n")]
    lines = " T* ".join(f"({line}) Tj" for line in shown)
    return f"BT /F1 12 Tf 14 TL 72 720 Td {lines} ET".encode("cp1252")


def _file(objects: Sequence[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
