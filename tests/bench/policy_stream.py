"""What judging costs a streamed token: our engine beside re, google-re2 and hyperscan, all in one run. `make bench-policy`.

The others are given what they need to leak nothing: text is kept until no match can reach over its end (a window as long
as the longest match), and the window is searched again with each token. Ours holds back exactly what may still match.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import string
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import hyperscan
import re2

from services.inference.enforcement import Enforcement, Held
from services.inference.peers import Payer
from shared.identity import CredentialKind, Principal
from shared.log import configure
from shared.monitors.enforced import Enforced, Snapshot
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.monitors.stream import StreamMonitor, compile_rules
from tests.support.inference import ScriptedPolicy

TOKENS = 12_000
ROUNDS = 5
WINDOW = 64
FIRST = 520
PROMPTS = (400, 4_000)
SIZES = (8, 50, 1000)
SECRET = (
    r"\b\d{3}-\d{2}-\d{4}\b", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", r"\bghp_[A-Za-z0-9]{36}\b",
    r"\b[\w.+-]{1,32}@[\w-]{1,32}\.[a-z]{2,8}\b", r"\b(?:\d{4}[ -]?){3}\d{4}\b", r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    r"\bAIza[\w-]{35}\b", r"\bsk_live_[A-Za-z0-9]{24}\b",
)  # fmt: skip


def patterns(count: int, chance: random.Random) -> list[str]:
    """Eight that look for personal data and keys, then words and codes of a made-up business."""
    made = list(SECRET)
    while len(made) < count:
        word = "".join(chance.choices(string.ascii_lowercase, k=chance.randint(5, 9)))
        code = "".join(chance.choices(string.ascii_uppercase, k=3))
        made.append(chance.choice((rf"\b{word}\b", rf"\b{code}-\d{{3,6}}\b", rf"\b{word[:4]}[a-z]{{2,5}}\d{{2}}\b")))
    return made[:count]


def tokens() -> list[str]:
    """Prose with something to find every few hundred tokens, four characters a token."""
    root = Path(__file__).resolve().parents[2]
    prose = " ".join(
        (root / name).read_text() for name in ("README.md", "docs/glossary.md", "protos/agentnet/README.md")
    )
    words = prose.split()
    chance = random.Random(5)
    said = [chance.choice(words) if n % 97 else "123-45-6789" for n in range(TOKENS)]
    text = " ".join(said)
    return [text[at : at + 4] for at in range(0, len(text), 4)][:TOKENS]


def ours(found: list[str]) -> Callable[[list[str]], list[int]]:
    rules = tuple(Rule(f"r{n}", RuleType.REGEX, Severity.SEVERE, pattern=one) for n, one in enumerate(found))
    compiled = compile_rules([Bundle("bench", "1.0.0", rules)], Target.OUTPUT)

    def run(pieces: list[str]) -> list[int]:
        monitor, held = StreamMonitor(compiled, Target.OUTPUT), []
        for piece in pieces:
            monitor.feed(piece)
            held.append(monitor.held)
        monitor.finish()
        return held

    return run


def slowest(count: int, pieces: list[str]) -> str:
    """What single tokens take of the processor, and what the first one of a stream takes."""
    found = patterns(count, random.Random(count))
    rules = tuple(Rule(f"r{n}", RuleType.REGEX, Severity.SEVERE, pattern=one) for n, one in enumerate(found))
    compiled = compile_rules([Bundle("bench", "1.0.0", rules)], Target.OUTPUT)
    ours_once = StreamMonitor(compiled, Target.OUTPUT)
    for piece in pieces:
        ours_once.feed(piece)
    first: list[float] = []
    each: list[float] = []
    for at in range(0, len(pieces) - 20, 20):
        monitor = StreamMonitor(compiled, Target.OUTPUT)
        for place, piece in enumerate(pieces[at : at + 20]):
            began = time.thread_time()
            monitor.feed(piece)
            (each if place else first).append((time.thread_time() - began) * 1e6)
    p99 = [sorted(times)[int(len(times) * 0.99)] for times in (first, each)]
    return f"{count} rules: p99 of a stream's first token {p99[0]:.0f} us, of the others {p99[1]:.0f} us\n"


def first_tokens() -> str:
    """What policy adds to the way from a prompt to its first token: the prompt judged, monitors made, a token judged. Beside
    it the same way with no rule in force.
    """
    prose = "".join(tokens())
    lines = ["\n| rules | prompt, characters | added p50 us | added p99 us |\n|" + "---|" * 4 + "\n"]
    for count in SIZES[1:]:
        rules = tuple(
            Rule(f"r{n}", RuleType.REGEX, Severity.SEVERE, action=Action.REDACT, pattern=one)
            for n, one in enumerate(patterns(count, random.Random(count)))
        )
        for length in PROMPTS:
            prompts = [prose[at : at + length] for at in range(0, FIRST * 40, 40)]
            spent = [asyncio.run(to_first_token(found, prompts)) for found in ((Bundle("bench", "1.0.0", rules),), ())]
            added = sorted(on - off for on, off in zip(*spent, strict=True))
            p50, p99 = (added[int(len(added) * share)] for share in (0.5, 0.99))
            lines.append(f"| {count} | {length} | {p50:.0f} | {p99:.0f} |\n")
    return "".join(lines)


async def to_first_token(bundles: tuple[Bundle, ...], prompts: list[str]) -> list[float]:
    """CPU microseconds of each prompt. The first twenty are not counted: they meet an automaton that has seen no text."""

    async def watch(_after: int) -> AsyncIterator[Snapshot]:
        yield Snapshot(1, {"*": bundles})

    enforced = Enforced(watch, Held.of)
    await enforced.follow()
    enforcement = Enforcement(enforced, ScriptedPolicy(), strict=True)
    payer = Payer(Principal("acme", "ada", frozenset(), CredentialKind.TOKEN), "gen_1", "", "model", "", "", "gen_1")
    spent = []
    for prompt in prompts:
        began = time.thread_time()
        held = await enforcement.held(payer, ())
        judged = await enforcement.check_prompt(held, payer, [prompt])
        guard = enforcement.guard(held, payer)
        await guard.text(judged.texts[0][:4])
        spent.append((time.thread_time() - began) * 1e6)
    return spent[20:]


def windowed(search: Callable[[str], object]) -> Callable[[list[str]], list[int]]:
    def run(pieces: list[str]) -> list[int]:
        window, held = "", []
        for piece in pieces:
            window = (window + piece)[-WINDOW:]
            search(window)
            held.append(len(window))
        return held

    return run


def with_re2_set(found: list[str]) -> Callable[[list[str]], list[int]]:
    known = re2.Set.SearchSet()
    for one in found:
        known.Add(one)
    known.Compile()
    return windowed(known.Match)


def with_hyperscan(found: list[str]) -> Callable[[list[str]], list[int]]:
    """Streaming mode tells where matches end, not what may still match: the window is held all the same."""
    database = hyperscan.Database(mode=hyperscan.HS_MODE_STREAM)
    count, expressions = len(found), [one.encode() for one in found]
    database.compile(expressions=expressions, ids=list(range(count)), elements=count, flags=[0] * count)

    def run(pieces: list[str]) -> list[int]:
        with database.stream(match_event_handler=_seen) as stream:
            for piece in pieces:
                stream.scan(piece.encode())
        return [WINDOW] * len(pieces)

    return run


def _seen(*_: object) -> None:
    """A match was reported."""


def engines(found: list[str]) -> dict[str, Callable[[], Callable[[list[str]], list[int]]]]:
    return {
        "agentnet": lambda: ours(found),
        "re, one pattern of all": lambda: windowed(re.compile("|".join(found)).search),
        "google-re2, one set": lambda: with_re2_set(found),
        "hyperscan, streaming": lambda: with_hyperscan(found),
    }


def main() -> None:
    configure("bench", "WARNING")
    pieces = tokens()
    sys.stdout.write(
        "| rules | engine | compile ms | first run us/token | us/token | held p50 | held p99 |\n|" + "---|" * 7 + "\n"
    )
    for count in SIZES:
        found = patterns(count, random.Random(count))
        for name, make in engines(found).items():
            began = time.perf_counter()
            run = make()
            compiled = (time.perf_counter() - began) * 1000
            times = []
            for _ in range(ROUNDS):
                began_cpu = time.process_time()
                held = sorted(run(pieces))
                times.append((time.process_time() - began_cpu) / len(pieces) * 1e6)
            p99 = held[int(len(held) * 0.99)]
            row = (
                count,
                name,
                f"{compiled:.0f}",
                f"{times[0]:.2f}",
                f"{min(times):.2f}",
                round(statistics.median(held)),
                p99,
            )
            sys.stdout.write("| " + " | ".join(map(str, row)) + " |\n")
    sys.stdout.write("\n" + "".join(slowest(count, pieces) for count in SIZES[1:]))
    sys.stdout.write(first_tokens())


if __name__ == "__main__":
    main()
