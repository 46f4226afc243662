"""Five hundred things that must not get out, the rules against them, and every way to cut the text around them."""

# ruff: noqa: RUF001 - look-alikes are what is tested
from __future__ import annotations

import codecs
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.monitors.rules import Bundle, Rule, RuleType, Severity, Target
from shared.monitors.stream import CompiledRules, StreamMonitor, compile_rules
from tests.support import personal

PHRASES = (
    "Project Nightingale", "operation кедр", "внутренний отчёт", "極秘資料", "기밀 문서", "launch code", "naïve façade",
    "Straße nach Köln", "δοκιμή", "merger with Globex", "zero-day in billing", "the blue folder", "🔒 vault", "C++ core",
    "<script>", "do not share", "red-team plan", "שלום סודי", "बजट मसौदा", "board minutes",
)  # fmt: skip
RULES = (
    Rule("pii", RuleType.PII, Severity.SEVERE),
    Rule("keys", RuleType.SECRET, Severity.SEVERE),
    Rule("words", RuleType.KEYWORD, Severity.SEVERE, keywords=PHRASES),
    Rule("cases", RuleType.REGEX, Severity.SEVERE, pattern=r"(?<![A-Z])CASE-\d{4}/[A-Z]{2}(?![A-Z])"),
)
SEPARATORS = {
    "-": "‐‑‒–—−－", " ": "\u00a0\u2007\u2009\u202f\u3000", ".": "․。．", "/": "⁄∕／", ":": "：∶", "@": "＠", "_": "＿", "+": "＋",
}  # fmt: skip
INVISIBLE = "\u200b\u200c\u200d\u2060\u00ad\ufeff"
AROUND = (
    ("Please send ", " to the office."), ("", ""), ("(", ")"), ("Her record says: ", ", as filed in May"), ("«", "»"),
    ("日本語の", "。"), ("e-mail or call, then ", "\nand wait"), ("a 12 b 34 ", " c 56"), ('{"value": "', '"}'),
    ("It was said that ", " is what he typed"), ("x = '", "'; y"), ("été ", " été"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A text, and the rule that must catch it."""

    text: str
    rule: str


def corpus(seed: int = 7) -> list[Forbidden]:
    """Exactly 500, drawn by lot from a seed."""
    chance = random.Random(seed)
    made = [Forbidden(phrase, "words") for phrase in PHRASES]
    made += [Forbidden(personal.make(kind, chance), "pii") for kind in personal.KINDS for _ in range(50)]
    made += [Forbidden(personal.make_key(kind, chance), "keys") for kind in personal.KEYS for _ in range(12)]
    while len(made) < 500:
        number = "".join(chance.choices(string.digits, k=4))
        made.append(Forbidden(f"CASE-{number}/{''.join(chance.choices(string.ascii_uppercase, k=2))}", "cases"))
    return made


def compiled() -> CompiledRules:
    return compile_rules([Bundle("corpus", "1.0.0", RULES)], Target.OUTPUT)


def disguises(text: str, chance: random.Random) -> Iterator[str]:
    """The text as it stands, with look-alike separators, and with invisible characters in between."""
    yield text
    if any(character in SEPARATORS for character in text):
        yield "".join(chance.choice(SEPARATORS.get(character, character)) for character in text)
    places = set(chance.sample(range(1, len(text)), k=min(3, len(text) - 1)))
    yield "".join(
        chance.choice(INVISIBLE) + character if place in places else character for place, character in enumerate(text)
    )


def cuts(text: str, chance: random.Random) -> Iterator[list[str]]:
    """In two at every place, into single characters, at random, and as UTF-8 cut inside characters."""
    for place in range(1, len(text)):
        yield [text[:place], text[place:]]
    yield list(text)
    for _ in range(4):
        places = sorted(chance.sample(range(1, len(text)), k=min(len(text) - 1, chance.randint(1, 8))))
        yield [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    decoder = codecs.getincrementaldecoder("utf-8")()
    yield [decoder.decode(bytes([byte])) for byte in text.encode()]


def shown(rules: CompiledRules, pieces: Sequence[str]) -> str:
    monitor = StreamMonitor(rules, Target.OUTPUT)
    return "".join([*(monitor.feed(piece).text for piece in pieces), monitor.finish().text])


def cases(
    chosen: Sequence[Forbidden], around: Sequence[tuple[str, str]], seed: int = 7
) -> Iterator[tuple[list[str], str]]:
    """Pieces, and what must come out of them."""
    chance = random.Random(seed)
    for forbidden in chosen:
        for before, after in around:
            for disguised in disguises(forbidden.text, chance):
                wanted = f"{before}[REDACTED:{forbidden.rule}]{after}"
                for pieces in cuts(before + disguised + after, chance):
                    yield pieces, wanted
