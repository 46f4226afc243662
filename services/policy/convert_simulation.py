"""Between the contract and simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agentnet.policy.v1 import simulation_service_pb2 as pb
from services.policy import convert
from services.policy.convert_governance import instant
from services.policy.simulation import Decision, Input, Simulation
from shared import fields
from shared.errors import FieldRequired
from shared.monitors.rules import Target
from shared.paging import paged

MOST_LISTED: Final = 10_000
_MAX_DECISIONS: Final = 100
_MAX_NAMES: Final = 64
_MAX_TEXT: Final = 262_144
MAX_DOCUMENT: Final = 1024 * 1024
_LIMIT, _MOST = 10_000, 50_000
_DAY: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A parsed simulation: a stored version, or a document."""

    name: str
    version: str
    document: str
    start: datetime
    end: datetime
    limit: int


def inputs(request: pb.RecordDecisionsRequest, now: datetime) -> list[tuple[Decision, Input]]:
    fields.at_most(len(request.decisions), "decisions", limit=_MAX_DECISIONS)
    return [_read(one, now) for one in request.decisions]


def simulate(request: pb.SimulateBundleRequest, now: datetime) -> Wanted:
    if not request.name and not request.document:
        raise FieldRequired("name")
    name, version = convert.reference(request.name) if request.name else ("", "")
    return Wanted(
        name=name,
        version=version,
        document=fields.text(request.document, "document", limit=MAX_DOCUMENT),
        start=fields.instant(request.start_time, "start_time") if request.HasField("start_time") else now - _DAY,
        end=fields.instant(request.end_time, "end_time") if request.HasField("end_time") else now,
        limit=int(fields.within(request.limit, "limit", low=0, high=_MOST)) or _LIMIT,
    )


def simulated(found: Simulation) -> pb.SimulateBundleResponse:
    return pb.SimulateBundleResponse(
        decisions=found.decisions,
        newly_blocked=found.newly_blocked,
        newly_allowed=found.newly_allowed,
        newly_changed=found.newly_changed,
        blast_radius=pb.BlastRadius(sessions=found.sessions, agents=found.agents, share=found.share),
        rules=[
            pb.RuleCount(rule=one.rule, matches=one.matches, false_positives=one.false_positives) for one in found.rules
        ],
        precision=found.precision,
        recall=found.recall,
        labelled=found.labelled,
        examples=found.examples,
        left_out=found.left_out,
    )


def listed(request: pb.ListDecisionsRequest, found: Sequence[Decision]) -> pb.ListDecisionsResponse:
    shown, token = paged(found, request, scope="decisions", name=lambda one: one.id)
    return pb.ListDecisionsResponse(decisions=[decision(one) for one in shown], next_page_token=token)


def decision(one: Decision) -> pb.Decision:
    return pb.Decision(
        id=one.id,
        target=convert.to_target(one.target),
        agent=one.agent,
        session_id=one.session_id,
        allowed=one.allowed,
        unchanged=one.unchanged,
        harmful=one.harmful,
        create_time=instant(one.created_at),
        truncated=one.truncated,
        bundles=one.bundles,
        rules=one.rules,
    )


def _read(one: pb.DecisionInput, now: datetime) -> tuple[Decision, Input]:
    given = Input(
        text=fields.text(one.text, "decisions.text", limit=_MAX_TEXT),
        facts=dict(one.facts),
        tool=fields.text(one.tool, "decisions.tool", limit=128),
        arguments=fields.mapping(one.arguments, "decisions.arguments", limit=_MAX_TEXT),
    )
    made = Decision(
        id=fields.required(one.id, "decisions.id", limit=100),
        target=convert.from_target(one.target) or Target.OUTPUT,
        agent=fields.text(one.agent, "decisions.agent", limit=64),
        session_id=fields.text(one.session_id, "decisions.session_id", limit=64),
        allowed=one.allowed,
        unchanged=one.unchanged,
        created_at=fields.instant(one.create_time, "decisions.create_time") if one.HasField("create_time") else now,
        truncated=one.truncated,
        bundles=_names(one.bundles, "decisions.bundles"),
        rules=_names(one.rules, "decisions.rules"),
    )
    return made, given


def _names(given: Sequence[str], field: str) -> tuple[str, ...]:
    fields.at_most(len(given), field, limit=_MAX_NAMES)
    return tuple(fields.text(name, field, limit=128) for name in given)
