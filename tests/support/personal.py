"""Personal data and keys of nobody: well formed, check digits right, made anew from a seed."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Final

_BASE62: Final = string.ascii_letters + string.digits
_FIRST: Final = ("ada", "li", "marta", "jose", "wei", "ines", "otto", "zoe", "kofi", "mia")
_HOSTS: Final = ("example.com", "mail.example.org", "uni-bonn.example", "co.example.uk", "shop.example.io")
_CARDS: Final = (("4", 16), ("51", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16), ("36", 14), ("3528", 16))
_IBANS: Final = (("DE", 18, ""), ("FR", 23, ""), ("NL", 14, "ABNA"), ("GB", 18, "WEST"), ("ES", 20, ""), ("CH", 17, ""))


def _digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choices(string.digits, k=count))


def _ssn(chance: random.Random) -> str:
    area = chance.choice([number for number in range(1, 900) if number != 666])
    return f"{area:03}{(s := chance.choice('- '))}{chance.randint(1, 99):02}{s}{chance.randint(1, 9999):04}"


def _card(chance: random.Random) -> str:
    prefix, length = chance.choice(_CARDS)
    body = prefix + _digits(chance, length - len(prefix) - 1)
    doubled = [int(d) if n % 2 else sum(divmod(2 * int(d), 10)) for n, d in enumerate(reversed(body))]
    number = body + str(-sum(doubled) % 10)
    return chance.choice(("", " ", "-")).join(number[at : at + 4] for at in range(0, length, 4))


def _email(chance: random.Random) -> str:
    return f"{chance.choice(_FIRST)}{chance.choice('._+-')}{_digits(chance, 3)}@{chance.choice(_HOSTS)}"


def _phone(chance: random.Random) -> str:
    area, exchange, line = chance.randint(201, 989), chance.randint(201, 989), _digits(chance, 4)
    return chance.choice(
        (
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"{area}.{exchange}.{line}",
            f"+1 {area} {exchange} {line}",
            f"+49 30 {_digits(chance, 7)}",
            f"+44 20 {_digits(chance, 4)} {_digits(chance, 4)}",
            f"+33 1 {' '.join(_digits(chance, 2) for _ in range(4))}",
        )
    )


def _iban(chance: random.Random) -> str:
    country, length, bank = chance.choice(_IBANS)
    body = bank + _digits(chance, length - len(bank))
    value = int("".join(str(int(one, 36)) for one in f"{body}{country}00"))
    number = f"{country}{98 - value % 97:02}{body}"
    return number if chance.random() < 0.5 else " ".join(number[at : at + 4] for at in range(0, len(number), 4))


def _ip(chance: random.Random) -> str:
    if chance.random() < 0.7:
        return ".".join(str(chance.randint(1, 254)) for _ in range(4))
    return ":".join(f"{chance.randint(1, 65535):x}" for _ in range(8))


KINDS: Final[dict[str, Callable[[random.Random], str]]] = {
    "ssn": _ssn, "card": _card, "email": _email, "phone": _phone, "iban": _iban, "ip": _ip,
}  # fmt: skip
KEYS: Final[dict[str, Callable[[random.Random], str]]] = {
    "aws_access_key": lambda c: "AKIA" + "".join(c.choices(string.ascii_uppercase + string.digits, k=16)),
    "google_api_key": lambda c: "AIza" + "".join(c.choices(_BASE62, k=35)),
    "github_token": lambda c: "ghp_" + "".join(c.choices(_BASE62, k=36)),
    "slack_token": lambda c: f"xoxb-{_digits(c, 12)}-{''.join(c.choices(_BASE62, k=24))}",
    "stripe_key": lambda c: "sk_live_" + "".join(c.choices(_BASE62, k=24)),
    "gitlab_token": lambda c: "glpat-" + "".join(c.choices(_BASE62, k=20)),
    "npm_token": lambda c: "npm_" + "".join(c.choices(_BASE62, k=36)),
    "huggingface_token": lambda c: "hf_" + "".join(c.choices(_BASE62, k=34)),
    "azure_storage_key": lambda c: "AccountKey=" + "".join(c.choices(_BASE62, k=86)) + "==",
    "twilio_key": lambda c: "SK" + "".join(c.choices("0123456789abcdef", k=32)),
}


def make(kind: str, chance: random.Random) -> str:
    """One of a kind of personal data."""
    return KINDS[kind](chance)


def make_key(kind: str, chance: random.Random) -> str:
    """One key of a kind."""
    return KEYS[kind](chance)
