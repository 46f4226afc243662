"""Five minutes against the hour before and the same hour of other days."""

from __future__ import annotations

from services.cost.report_store import AlertKind, Pace
from services.cost.velocity import Rule, Speeding, speeding

MONEY = Rule(AlertKind.VELOCITY, 5.0, 100)
TOKENS = Rule(AlertKind.TOKEN_SPIKE, 5.0, 1000)


def steady(agent: str, micros: int, tokens: int = 0) -> list[Pace]:
    return [Pace(agent, ago, micros, tokens) for ago in range(1, 12)]


def test_an_agent_six_times_as_fast_as_usual_speeds_and_one_five_times_does_not() -> None:
    paces = [*steady("A@1", 50), *steady("B@1", 50), Pace("A@1", 0, 300, 0), Pace("B@1", 0, 250, 0)]
    assert speeding(paces, [MONEY]) == [
        Speeding(AlertKind.VELOCITY, "tenant:", 550, 100),
        Speeding(AlertKind.VELOCITY, "agent:A@1", 300, 50),
    ]


def test_below_the_floor_nothing_speeds() -> None:
    assert speeding([Pace("A@1", 0, 99, 0)], [MONEY]) == []


def test_from_nothing_the_floor_decides() -> None:
    assert [one.subject for one in speeding([Pace("", 0, 100, 0)], [MONEY])] == ["tenant:"]


def test_tokens_have_a_rule_of_their_own() -> None:
    paces = [*steady("A@1", 0, 200), Pace("A@1", 0, 0, 1001)]
    assert [(one.kind, one.observed, one.usual) for one in speeding(paces, [MONEY, TOKENS])] == [
        (AlertKind.TOKEN_SPIKE, 1001, 200),
        (AlertKind.TOKEN_SPIKE, 1001, 200),
    ]


def test_one_busy_step_in_the_hour_does_not_make_the_usual() -> None:
    paces = [*steady("A@1", 10), Pace("A@1", 3, 5000, 0), Pace("A@1", 0, 100, 0)]
    assert [one.usual for one in speeding(paces, [MONEY])] == [10, 10]


def test_what_is_busy_at_this_hour_on_other_days_may_be() -> None:
    assert speeding([Pace("A@1", 0, 500, 0)], [MONEY], lambda _, __: 100) == []
