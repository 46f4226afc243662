"""How well anomalies are found: `python -m tests.bench.cost_anomalies` prints the table.

Each series has nine weeks of hours with one anomaly of each of the five kinds. An anomaly counts as found when a finding lies
in it; a finding that lies in none is false.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.cost.anomalies import Kind, anomalies, judge
from tests.support.spend import FIRST, spend

SEEDS = range(1000, 1060)  # others than those the detector was tuned on


@dataclass(slots=True)
class Score:
    """Counts over many series."""

    injected: Counter[Kind] = field(default_factory=Counter)
    found: Counter[Kind] = field(default_factory=Counter)
    named: Counter[Kind] = field(default_factory=Counter)
    delays: dict[Kind, list[float]] = field(default_factory=dict)
    true: int = 0
    false: int = 0

    @property
    def precision(self) -> float:
        return self.true / (self.true + self.false)

    @property
    def recall(self) -> float:
        return self.found.total() / self.injected.total()


def score(seeds: Iterable[int], *, noise: float = 0.15) -> Score:
    total = Score()
    for seed in seeds:
        values, injected = spend(seed, noise=noise)
        findings = anomalies(judge(FIRST, values))
        for real in injected:
            met = [finding for finding in findings if real.met_by(finding)]
            total.injected[real.kind] += 1
            total.found[real.kind] += bool(met)
            total.named[real.kind] += any(finding.kind is real.kind for finding in met)
            if met:
                delay = max(0.0, (met[0].start - real.start).total_seconds() / 3600)
                total.delays.setdefault(real.kind, []).append(delay)
        meets = [any(real.met_by(finding) for real in injected) for finding in findings]
        total.true += sum(meets)
        total.false += len(meets) - sum(meets)
    return total


def main() -> None:
    write = sys.stdout.write
    for noise in (0.15, 0.3):
        found = score(SEEDS, noise=noise)
        write(
            f"\nnoise {noise:.0%}: precision {found.precision:.3f} ({found.true} true, {found.false} false findings), "
        )
        write(
            f"recall {found.recall:.3f}\n\n| kind | recall | named so | hours until found, median |\n|---|---|---|---|\n"
        )
        for kind in Kind:
            many = found.injected[kind]
            delays = sorted(found.delays.get(kind, [float("nan")]))
            write(f"| {kind} | {found.found[kind] / many:.2f} | {found.named[kind] / many:.2f} ")
            write(f"| {delays[len(delays) // 2]:.0f} |\n")


if __name__ == "__main__":
    main()
