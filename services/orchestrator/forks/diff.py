"""Two sessions side by side: the turns they share, then what each said in its place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from agentnet.orchestrator.v1 import history_pb2, history_service_pb2, session_pb2, turn_pb2
from services.orchestrator.convergence.jaccard import similarity
from services.orchestrator.replays.cassette import text_diff

Turn = turn_pb2.Turn


def diff(
    left: tuple[session_pb2.Session, Sequence[Turn], int], right: tuple[session_pb2.Session, Sequence[Turn], int]
) -> history_service_pb2.DiffSessionsResponse:
    """Each side is a session, its turns in order, and how many verdicts it has."""
    common = 0
    for one, other in zip(left[1], right[1], strict=False):
        if (one.round, one.agent, one.prompt, one.content) != (other.round, other.agent, other.prompt, other.content):
            break
        common += 1
    pairs = zip_longest(left[1][common:], right[1][common:])
    return history_service_pb2.DiffSessionsResponse(
        common_turns=common,
        turns=[_turn(place, *pair) for place, pair in enumerate(pairs, start=common + 1)],
        left=_totals(*left),
        right=_totals(*right),
    )


def _turn(place: int, left: Turn | None, right: Turn | None) -> history_pb2.TurnDiff:
    before, after = (left.content if left else ""), (right.content if right else "")
    return history_pb2.TurnDiff(
        place=place,
        left=left,
        right=right,
        diff=text_diff(before, after, names=("left", "right")),
        similarity=similarity(before, after),
    )


def _totals(session: session_pb2.Session, turns: Sequence[Turn], verdicts: int) -> history_pb2.SessionTotals:
    return history_pb2.SessionTotals(
        session_id=session.id,
        status=session.status,
        stop_reason=session.stop_reason,
        rounds_executed=session.rounds_executed,
        turns=len(turns),
        usage=session.usage,
        cost_micros_usd=session.cost_micros_usd,
        verdicts=verdicts,
    )
