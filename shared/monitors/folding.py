"""What a character looks like: look-alikes fold to one plain character, invisible ones are nothing at all."""

# ruff: noqa: RUF001 - look-alikes are what this module is about
from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

_LOOK_ALIKES: Final = {
    **dict.fromkeys("‐‑‒–—―−⁃˗﹘﹣－᠆➖⸺⸻", "-"),
    **dict.fromkeys("。｡·•‧∙⋅․", "."),
    **dict.fromkeys("⁄∕╱⧸", "/"),
    **dict.fromkeys("∶ː։׃︰꞉", ":"),
    **dict.fromkeys("‚،٬", ","),
    **dict.fromkeys("ˍ﹍﹎﹏", "_"),
    **dict(zip("аеорсухіјѕԁһԛԝӏɡ", "aeopcyxijsdhqwlg", strict=True)),
    **dict(zip("АВЕКМНОРСТХІЈЅԚԜҮ", "ABEKMHOPCTXIJSQWY", strict=True)),
    **dict(zip("οΟΑΒΕΖΗΙΚΜΝΡΤΥΧνιρ", "oOABEZHIKMNPTYXvip", strict=True)),
}
_INVISIBLE_CATEGORY: Final = "Cf"
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | frozenset(map(chr, range(0xFE00, 0xFE10)))


@lru_cache(maxsize=65_536)
def fold(character: str) -> str:
    """The plain character this one stands in for: always exactly one, so that places in a text stay what they are."""
    if character < "\x80":
        return character
    found = _LOOK_ALIKES.get(character)
    if found is None:
        digit = unicodedata.decimal(character, None)
        plain = str(digit) if digit is not None else unicodedata.normalize("NFKC", character)
        found = plain if len(plain) == 1 else character
        found = _LOOK_ALIKES.get(found, found)
    return found


@lru_cache(maxsize=65_536)
def invisible(character: str) -> bool:
    """Whether nothing is shown for it: zero-width, soft hyphen, direction marks, fillers, variation selectors."""
    if character < "\x80":
        return False
    return character in _INVISIBLE or unicodedata.category(character) == _INVISIBLE_CATEGORY


def plain(text: str) -> str:
    """The text as a reader sees it: folded, without what is invisible."""
    if text.isascii():
        return text
    return "".join(fold(character) for character in text if not invisible(character))
