"""How well personal data is found, on text written anew by Faker, beside two peers, in one run. `make bench-policy-pii`.

Faker and the peers (presidio-analyzer, scrubadub) are no dependencies: what is not installed is told of and left out.
Presidio runs its recognizers by pattern, the six kinds counted here, without its language model. A find counts when its
kind is right and it covers the value and no more than two characters beside it. Rules were tuned on other seeds only.
CPU time is that of texts never read before, the least of six such sets: whatever else the machine does only adds to it. The last
row is of texts with keys of the common clouds in them too, which the peers do not look for.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.monitors.stream import compile_rules, judge
from tests.support import personal

DOCUMENTS = 600
SEED = 20_261
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR")
KINDS = ("ssn", "card", "email", "phone", "iban", "ip")
KEY = "key"
SETS = 6
SLACK = 2
_AROUND = {
    "ssn": (("My SSN is ", "ssn: ", "Social security "), (".", ",", "")),
    "card": (("Charge ", "card ", ""), (".", " please")),
    "email": (("Write to ", "<", "mail:"), (".", ">", " now")),
    "phone": (("Call ", "Tel. ", "at "), (".", ";", " today")),
    "iban": (("IBAN ", "to "), (".", ",")),
    "ip": (("from ", "host "), (",", " at")),
    "key": (("with ", "token: ", "key="), (".", " ", ",")),
}

Span = tuple[int, int, str]
Finder = Callable[[str], list[Span]]


@dataclass(frozen=True, slots=True)
class Document:
    """A text and what is to be found in it."""

    text: str
    spans: tuple[Span, ...]


def documents(seed: int, kinds: tuple[str, ...] = KINDS) -> list[Document]:
    """Sentences with personal data and with numbers that are none."""
    faker = importlib.import_module("faker")
    makers = {locale: faker.Faker(locale) for locale in LOCALES}
    chance = random.Random(seed)
    for place, maker in enumerate(makers.values()):
        maker.seed_instance(seed + place)
    return [_document(makers[chance.choice(LOCALES)], makers["en_US"], chance, kinds) for _ in range(DOCUMENTS)]


def _document(maker: Any, us: Any, chance: random.Random, kinds: tuple[str, ...]) -> Document:
    text, spans = "", []
    for _ in range(chance.randint(3, 8)):
        if chance.random() < 0.5:
            text += maker.sentence() + " "
        kind = chance.choice((*kinds, "nothing", "nothing"))
        before, value, after = said(kind, maker, us, chance)
        if kind != "nothing":
            spans.append((len(text) + len(before), len(text) + len(before) + len(value), kind))
        text += f"{before}{value}{after} "
    return Document(text, tuple(spans))


def said(kind: str, maker: Any, us: Any, chance: random.Random) -> tuple[str, str, str]:
    """What stands before, the value, what stands after."""
    if kind == "nothing":
        return "", _harmless(maker, chance), "."
    values: dict[str, Callable[[], str]] = {
        "ssn": us.ssn,
        "card": maker.credit_card_number,
        "email": maker.email,
        "phone": maker.phone_number,
        "iban": maker.iban,
        "ip": chance.choice((maker.ipv4, maker.ipv6)),
        "key": lambda: personal.make_key(chance.choice(sorted(personal.KEYS)), chance),
    }
    value = values[kind]()
    if kind in ("card", "iban") and chance.random() < 0.5:
        value = " ".join(value[at : at + 4] for at in range(0, len(value), 4))
    before, after = _AROUND[kind]
    return chance.choice(before), value, chance.choice(after)


def _harmless(maker: Any, chance: random.Random) -> str:
    """Numbers that look like something and are not."""
    return str(
        chance.choice((
            lambda: f"ISBN {maker.isbn13()}", lambda: f"EAN {maker.ean13()}", lambda: f"on {maker.date()}",
            lambda: f"id {maker.uuid4()}", lambda: f"MAC {maker.mac_address()}", lambda: f"version {chance.randint(1, 9)}.{chance.randint(0, 30)}.{chance.randint(0, 9)}",
            lambda: f"order {chance.randint(10**7, 10**9)}", lambda: f"for {chance.randint(1, 9999)}.{chance.randint(10, 99)} EUR",
            lambda: f"at {maker.time()}", lambda: f"pages {chance.randint(1, 99)}-{chance.randint(100, 999)}",
            lambda: f"score {chance.randint(1, 9)}:{chance.randint(0, 9)}", lambda: f"since {maker.year()}",
        ))()
    )  # fmt: skip


def agentnet(*types: RuleType) -> Finder:
    """By a bundle of rules of these types, `pii` without any. A key of whatever maker is a key."""
    rules = (Rule(one.value, one, Severity.SEVERE, action=Action.REDACT) for one in types or (RuleType.PII,))
    compiled = compile_rules([Bundle("bench", "1.0.0", tuple(rules))], Target.OUTPUT)

    def find(text: str) -> list[Span]:
        found = judge(compiled, Target.OUTPUT, text).verdicts
        return [(one.start, one.end, one.kind if one.kind in KINDS else KEY) for one in found]

    return find


def presidio() -> Finder:
    known = importlib.import_module("presidio_analyzer.predefined_recognizers")
    names = {
        "UsSsnRecognizer": "ssn", "CreditCardRecognizer": "card", "EmailRecognizer": "email", "PhoneRecognizer": "phone",
        "IbanRecognizer": "iban", "IpRecognizer": "ip",
    }  # fmt: skip
    chosen = [(getattr(known, name)(), kind) for name, kind in names.items()]

    def find(text: str) -> list[Span]:
        found = [
            (one.start, one.end, kind)
            for recognizer, kind in chosen
            for one in recognizer.analyze(text, recognizer.supported_entities, None) or []
            if one.score >= 0.4
        ]
        return sorted(set(found))

    return find


def scrubadub() -> Finder:
    known = importlib.import_module("scrubadub")
    scrubber = known.Scrubber()
    names = {"social_security_number": "ssn", "credit_card": "card", "email": "email", "phone": "phone"}

    def find(text: str) -> list[Span]:
        return [(one.beg, one.end, names[one.type]) for one in scrubber.iter_filth(text) if one.type in names]

    return find


def measured(find: Finder, texts: list[Document]) -> tuple[float, float, float, float, dict[str, float]]:
    """Precision, recall, F1, ms a KB, recall by kind."""
    right, found_count, wanted_count = 0, 0, 0
    hits: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    began = time.process_time()
    results = [find(one.text) for one in texts]
    elapsed = time.process_time() - began
    for document, found in zip(texts, results, strict=True):
        matched = {span for span in document.spans if any(_same(span, one) for one in found)}
        right += sum(any(_same(span, one) for span in document.spans) for one in found)
        found_count += len(found)
        wanted_count += len(document.spans)
        wanted.update(kind for _, _, kind in document.spans)
        hits.update(kind for _, _, kind in matched)
    size = sum(len(one.text.encode()) for one in texts) / 1024
    precision, recall = right / max(1, found_count), hits.total() / max(1, wanted_count)
    by_kind = {kind: hits[kind] / wanted[kind] for kind in wanted}
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall), elapsed * 1000 / size, by_kind


def _same(wanted: Span, found: Span) -> bool:
    covers = found[0] <= wanted[0] and found[1] >= wanted[1]
    tight = wanted[0] - found[0] <= SLACK and found[1] - wanted[1] <= SLACK
    return wanted[2] == found[2] and covers and tight


def row(name: str, make: Callable[[], Finder], kinds: tuple[str, ...] = KINDS) -> str:
    try:
        find = make()
    except ImportError as error:
        return f"| {name} | not installed: {error.name} |\n"
    spent = [measured(find, documents(SEED + place, kinds))[3] for place in range(1, SETS)]
    *quality, last, by_kind = measured(find, documents(SEED, kinds))
    cells = [*(f"{value:.3f}" for value in (*quality, min(last, *spent))), *(f"{by_kind[kind]:.2f}" for kind in kinds)]
    return f"| {name} | " + " | ".join(cells) + " |\n"


def additions() -> float:
    """How quick the machine is: CPU seconds for a loop whose time is known elsewhere, the least of five."""
    spent = []
    for _ in range(5):
        began, total = time.process_time(), 0
        for number in range(1_000_000):
            total += number
        spent.append(time.process_time() - began)
    return min(spent)


def main() -> None:
    texts = documents(SEED)
    sys.stdout.write(f"{len(texts)} documents, {sum(len(one.spans) for one in texts)} values, seed {SEED}; ")
    sys.stdout.write(f"a million additions take {additions():.3f} CPU s here and now\n\n")
    columns = ("finder", "precision", "recall", "F1", "CPU ms/KB", *KINDS, KEY)
    sys.stdout.write("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns) + "\n")
    for name, make in (("`pii`", agentnet), ("presidio, patterns", presidio), ("scrubadub", scrubadub)):
        sys.stdout.write(row(name, make))
    sys.stdout.write(row("`pii`, `secret`", lambda: agentnet(RuleType.PII, RuleType.SECRET), (*KINDS, KEY)))


if __name__ == "__main__":
    main()
