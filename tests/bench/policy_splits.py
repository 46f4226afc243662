"""A million ways to cut a text with something forbidden in it: not one character may get out. `make bench-policy-splits`.

The rules come from a served policy service over WatchBundles; half way, with a stream open, it is stopped, and the other half
is judged without it. `CASES=10000 SEED=3` takes fewer, drawn from another seed. A token is counted as four characters.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path

from agentnet.policy.v1 import policy_service_pb2, policy_service_pb2_grpc
from shared.log import configure
from shared.monitors import wire
from shared.monitors.rules import Target
from shared.monitors.stream import CompiledRules, StreamMonitor, compile_rules
from tests.service.policy.calls import create
from tests.support.forbidden import AROUND, RULES, cases, corpus
from tests.support.identity import Keys, make_keys
from tests.support.policy import PolicyParts, served

MILLION = 1_000_000
SHOWN = 5
TOKEN = 4
Case = tuple[list[str], str]


@dataclass(slots=True)
class Tally:
    """What came out of the cases so far, and what it took of the processor."""

    count: int = 0
    leaked: int = 0
    characters: int = 0
    seconds: float = 0.0
    held: Counter[int] = field(default_factory=Counter)
    beside: Counter[int] = field(default_factory=Counter)

    def judge(self, rules: CompiledRules, chosen: Iterable[Case]) -> None:
        for pieces, expected in chosen:
            began = time.thread_time()
            monitor = StreamMonitor(rules, Target.OUTPUT)
            text, held = fed(monitor, pieces)
            text += monitor.finish().text
            self.seconds += time.thread_time() - began
            self.characters += sum(map(len, pieces))
            self.compare(text, expected, pieces)
            self.count_held(held, expected, pieces)

    def count_held(self, held: Sequence[int], expected: str, pieces: Sequence[str]) -> None:
        start, end = forbidden_span(expected, sum(map(len, pieces)))
        for at, count in zip(accumulate(map(len, pieces)), held, strict=True):
            self.held[count] += 1
            self.beside[count - max(0, min(at, end) - max(start, at - count))] += 1

    def compare(self, text: str, expected: str, pieces: Sequence[str]) -> None:
        self.count += 1
        if text != expected:
            self.leaked += 1
            if self.leaked <= SHOWN:
                sys.stdout.write(f"leaked: {pieces}\n")


def fed(monitor: StreamMonitor, pieces: Sequence[str]) -> tuple[str, list[int]]:
    """What is shown of the pieces, and how many characters are held after each."""
    shown, held = [], []
    for piece in pieces:
        shown.append(monitor.feed(piece).text)
        held.append(monitor.held)
    return "".join(shown), held


def forbidden_span(expected: str, length: int) -> tuple[int, int]:
    """Where what is forbidden stands in a text of so many characters."""
    before, _, rest = expected.partition("[REDACTED:")
    return len(before), length - len(rest.partition("]")[2])


def p99(lengths: Counter[int]) -> int:
    ahead = lengths.total() // 100
    for length, times in sorted(lengths.items(), reverse=True):
        ahead -= times
        if ahead < 0:
            return length
    return 0


async def published(keys: Keys, parts: PolicyParts, tally: Tally, streams: Iterator[Case], wanted: int) -> None:
    """Half of the cases while policy serves, one whose stream outlives it, the other half after it."""
    async with served(parts) as channel:
        stub = policy_service_pb2_grpc.PolicyServiceStub(channel)
        await create(stub, keys, _document(), labels=("production",))
        watched = stub.WatchBundles(policy_service_pb2.WatchBundlesRequest(), metadata=keys.metadata(kind="service"))
        bundles = wire.in_force((await anext(aiter(watched))).tenants, "acme", "")
        rules = compile_rules(bundles, Target.OUTPUT)
        tally.judge(rules, islice(streams, wanted // 2))
        pieces, expected = next(streams)
        monitor = StreamMonitor(rules, Target.OUTPUT)
        text = fed(monitor, pieces[:1])[0]
        watched.cancel()
    tally.compare(text + fed(monitor, pieces[1:])[0] + monitor.finish().text, expected, pieces)
    tally.judge(rules, islice(streams, wanted - tally.count))


def _document() -> str:
    facts = [
        {"name": one.name, "type": one.type.value, "severity": one.severity.value, "keywords": list(one.keywords) or None,
         "pattern": one.pattern or None}
        for one in RULES
    ]  # fmt: skip
    return json.dumps({"rules": [{key: value for key, value in one.items() if value} for one in facts]})


def main() -> int:
    configure("bench", "WARNING")
    wanted, first = int(os.environ.get("CASES") or MILLION), int(os.environ.get("SEED") or 0)
    tally = Tally()
    streams = (found for seed in range(first, first + 1000) for found in cases(corpus(seed), AROUND, seed))
    with tempfile.TemporaryDirectory() as folder:
        keys = make_keys(Path(folder), "policy")
        asyncio.run(published(keys, PolicyParts(keys), tally, streams, wanted))
    each = tally.seconds * 1e6 * TOKEN / max(1, tally.characters)
    sys.stdout.write(
        "| cases | not equal to redacting the whole | held p99 | held beside it p99 | us/token | CPU s |\n"
        "|---|---|---|---|---|---|\n"
        f"| {tally.count} | {tally.leaked} | {p99(tally.held)} | {p99(tally.beside)} | {each:.1f} | {tally.seconds:.0f} |\n"
    )
    return 1 if tally.leaked else 0


if __name__ == "__main__":
    sys.exit(main())
