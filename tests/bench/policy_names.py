"""How well names and addresses are found by the plug-in `presidio`, on text written anew by Faker.

`python -m tests.bench.policy_names`, with `agentnet[policy-presidio]` and faker installed. A value counts as found when nine
tenths of it are covered; a find is beside anything when it touches no value.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
from typing import Any, Final

from services.policy.presidio import ENTITIES, Names

DOCUMENTS: Final = 120
SEED: Final = 20_261
COVERED: Final = 0.9
_BEFORE: Final = {"name": ("My name is ", "Please call ", "Yours, "), "address": ("I live at ", "Send it to ")}
_HARMLESS: Final = ("The order ships on Monday.", "Version 2.4 is out.", "It took 12 minutes.", "See page 41.")

Span = tuple[int, int, str]


def documents() -> list[tuple[str, list[Span]]]:
    """Texts and the values in them."""
    made = []
    for locale in ("en_US", "en_GB"):
        chance, faker = random.Random(SEED), importlib.import_module("faker").Faker(locale)
        faker.seed_instance(SEED)
        made += [_document(faker, chance) for _ in range(DOCUMENTS // 2)]
    return made


def _document(faker: Any, chance: random.Random) -> tuple[str, list[Span]]:
    text, spans = "", list[Span]()
    for _ in range(chance.randint(3, 6)):
        if chance.random() < 0.5:
            text += faker.sentence() + " "
        kind = chance.choice((*ENTITIES, "nothing"))
        if kind == "nothing":
            text += chance.choice(_HARMLESS) + " "
            continue
        text += chance.choice(_BEFORE[kind])
        value = faker.name() if kind == "name" else faker.address().replace("\n", ", ")
        spans.append((len(text), len(text) + len(value), kind))
        text += value + ". "
    return text, spans


def covered(span: Span, found: tuple[tuple[int, int], ...]) -> bool:
    shared = sum(max(0, min(span[1], end) - max(span[0], start)) for start, end in found)
    return shared >= COVERED * (span[1] - span[0])


def main() -> int:
    finder, made = Names({}), documents()
    finder.find("Ada warms it up.")
    began = time.process_time()
    told = [finder.find(text) for text, _ in made]
    elapsed = (time.process_time() - began) * 1000 / (sum(len(text.encode()) for text, _ in made) / 1024)
    found = [one.spans if one else () for one in told]
    pairs = [(span, some) for (_, spans), some in zip(made, found, strict=True) for span in spans]
    for kind in ENTITIES:
        hits = [covered(span, some) for span, some in pairs if span[2] == kind]
        sys.stdout.write(f"| {kind} | {sum(hits)} of {len(hits)} |\n")
    beside = sum(
        not any(start < last and first < end for first, last, _ in spans)
        for (_, spans), some in zip(made, found, strict=True)
        for start, end in some
    )
    sys.stdout.write(f"| beside any value | {beside} of {sum(map(len, found))} |\n| CPU ms/KB | {elapsed:.1f} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
