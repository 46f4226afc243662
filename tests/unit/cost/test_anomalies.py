"""What stands out is found, and little else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.cost.anomalies import HOUR, Anomaly, Kind, anomalies, explained, judge
from tests.bench.cost_anomalies import score
from tests.support.spend import FIRST, spend


def test_five_kinds_are_found_with_few_false_findings() -> None:
    found = score(range(2000, 2006))
    assert found.recall >= 0.95
    assert found.precision >= 0.85
    assert found.found.keys() == set(Kind)


@pytest.mark.parametrize("kind", [Kind.SPIKE, Kind.DROP, Kind.SILENCE, Kind.SHIFT])
def test_an_anomaly_is_named_for_its_kind(kind: Kind) -> None:
    values, (real,) = spend(7, kinds=(kind,), noise=0.1)
    met = [one for one in anomalies(judge(FIRST, values)) if real.met_by(one)]
    assert [one.kind for one in met] == [kind]


def test_a_verdict_rests_on_the_past_alone() -> None:
    values, _ = spend(3)
    whole, part = judge(FIRST, values), judge(FIRST, values[:1000])
    assert whole[:1000] == part


def test_without_a_week_of_history_nothing_is_judged() -> None:
    values, _ = spend(1)
    assert not any(point.judged or point.kind for point in judge(FIRST, values[: 4 * 24]))


def test_no_spend_at_all_is_no_anomaly() -> None:
    assert anomalies(judge(FIRST, [0] * 1000)) == []


def test_the_band_holds_what_does_not_stand_out() -> None:
    values, _ = spend(5, kinds=())
    judged = [point for point in judge(FIRST, values) if point.judged]
    inside = [point.low <= point.spent <= point.high for point in judged]
    assert sum(inside) / len(inside) > 0.99
    assert all(point.low <= point.expected <= point.high for point in judged)


def test_an_explanation_says_how_much_against_what_and_where_from() -> None:
    found = Anomaly(FIRST, FIRST + 2 * HOUR, Kind.SPIKE, 9_000_000, 2_000_000, 7.5)
    parts = [("A@1 on p/m", 8_000_000, 1_500_000), ("B@1 on p/m", 1_000_000, 500_000)]
    assert explained(found, parts).explanation == (
        "Spike from Monday 2026-01-05 00:00 UTC for 2 h: $9.00 against $2.00 expected, 7.5 robust deviations at its worst "
        "hour. Most of it is A@1 on p/m: $8.00 against $1.50 a week before."
    )
    less = Anomaly(FIRST, FIRST + timedelta(hours=1), Kind.DROP, 0, 500_000, -6)
    assert explained(less, [("A@1 on p/m", 0, 450_000)]).explanation.endswith(
        "$0.000000 against $0.450000 a week before."
    )
