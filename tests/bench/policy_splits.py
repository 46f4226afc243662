"""A million ways to cut a text with something forbidden in it: not one character may get out. `make bench-policy-splits`."""

from __future__ import annotations

import sys
import time
from itertools import islice

from tests.support.forbidden import AROUND, cases, compiled, corpus, shown

MILLION = 1_000_000
SHOWN = 5


def main() -> int:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else MILLION
    rules, began, leaked, count = compiled(), time.perf_counter(), 0, 0
    rounds = (found for seed in range(1000) for found in cases(corpus(seed), AROUND, seed))
    for pieces, expected in islice(rounds, wanted):
        count += 1
        if shown(rules, pieces) != expected:
            leaked += 1
            if leaked <= SHOWN:
                sys.stdout.write(f"leaked: {pieces}\n")
    elapsed = time.perf_counter() - began
    sys.stdout.write("| cases | not equal to redacting the whole | seconds |\n|---|---|---|\n")
    sys.stdout.write(f"| {count} | {leaked} | {elapsed:.0f} |\n")
    return 1 if leaked else 0


if __name__ == "__main__":
    sys.exit(main())
