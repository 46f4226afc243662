"""Personal data by form and check digit."""

from __future__ import annotations

import re
import socket
import string
from typing import Final

from shared.monitors.folding import plain
from shared.monitors.library import Kind

_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
    "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip
_CARD_LENGTHS: Final = (
    (rb"4", (13, 16, 19)),
    (rb"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),
    (rb"3[47]", (15,)),
    (rb"3(?:0[0-5]|[68])", (14,)),
    (rb"35|2131|1800", (15, 16)),
    (rb"6(?:011|5|4[4-9]|22)", (16, 19)),
    (rb"62|81", (16, 17, 18, 19)),
    (rb"5[06789]|6|0604", (12, 13, 14, 15, 16, 17, 18, 19)),
)
_CARDS: Final = {
    count: re.compile(b"|".join(form for form, lengths in _CARD_LENGTHS if count in lengths)).match
    for count in range(12, 20)
}
_DOUBLED: Final = bytes.maketrans(b"0123456789", b"0246813579")
_BASE_36: Final = str.maketrans({letter: str(int(letter, 36)) for letter in string.ascii_uppercase})
_SEPARATORS: Final = b" -.()+/"
_PHONE_DIGITS: Final = range(10, 16)
_NUMBER: Final = re.compile("[^xe]*").match


def _digits(text: str) -> bytes:
    return plain(text).encode().translate(None, _SEPARATORS)


def luhn(digits: bytes) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1)."""
    return (sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED)) - ord("0") * len(digits)) % 10 == 0


def _card(text: str) -> bool:
    digits = _digits(text)
    return _CARDS[len(digits)](digits) is not None and luhn(digits)


def _iban(text: str) -> bool:
    compact = plain(text).replace(" ", "").upper()
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int((compact[4:] + compact[:4]).translate(_BASE_36)) % 97 == 1


def _ssn(text: str) -> bool:
    """Numbers the Social Security Administration never gives out are not numbers of persons."""
    number = _digits(text)
    area, group, serial = number[:3], number[3:5], number[5:]
    return area not in (b"000", b"666") and area < b"900" and group != b"00" and serial != b"0000"


def _address(text: str) -> bool:
    address = plain(text)
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        return False
    return True


def _phone(text: str) -> bool:
    """Extensions do not count."""
    return len(_digits(_NUMBER(plain(text))[0])) in _PHONE_DIGITS  # type: ignore[index] # it matches anything


# Beside a match: letters of scripts that write words apart. Others, such as Japanese, put no space before a number.
_SEP: Final = r"[ .\-]"
_AREA: Final = rf"(?:\([2-9]\d\d\) ?|[2-9]\d\d{_SEP})"
_EXTENSION: Final = r"(?:(?: ?x| ext\.? ?)\d{1,6})"
DETECTORS: Final = {
    "ssn": Kind((r"(?<![A-Za-z0-9_-])\d{3}[- ]\d{2}[- ]\d{4}(?![A-Za-z0-9_-])",), check=_ssn),
    "card": Kind((r"(?<![A-Za-z0-9_.-])\d(?:[ -]?\d){11,18}(?![A-Za-z0-9_-])",), check=_card),
    "email": Kind(
        (
            r"(?<![A-Za-z0-9_À-ɏ.+%-])[A-Za-z0-9_À-ɏ][A-Za-z0-9_À-ɏ.+%'-]{0,63}@(?:[A-Za-z0-9][\w-]{0,62}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9_-])",
        )
    ),
    "phone": Kind(
        (
            rf"(?<![A-Za-z0-9_.+-])\+\d{{1,3}}(?:{_SEP}?\(\d{{1,4}}\)|)(?:{_SEP}?\d){{6,13}}(?![A-Za-z0-9_-])",
            rf"(?<![A-Za-z0-9_.+-])(?:(?:\+?1|001){_SEP})?{_AREA}[2-9]\d\d{_SEP}?\d{{4}}{_EXTENSION}?(?![A-Za-z0-9_-])",
            rf"(?<![A-Za-z0-9_.+-])0\d(?:{_SEP}?\d){{8,10}}(?![A-Za-z0-9_-])",
            rf"(?<![A-Za-z0-9_.+-])\(0\d{{1,5}}\)(?:{_SEP}?\d){{5,9}}(?![A-Za-z0-9_-])",
        ),
        check=_phone,
    ),
    "iban": Kind((r"(?<![A-Za-z0-9_])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Z0-9])",), check=_iban, ignore_case=True),
    "ip": Kind(
        (
            r"(?<![A-Za-z0-9_.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_])",
            r"(?<![A-Za-z0-9_:.])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![A-Za-z0-9_:])",
            r"(?<![A-Za-z0-9_:.])[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}::(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?(?![A-Za-z0-9_:])",
        ),
        check=_address,
        ignore_case=True,
    ),
}
