"""Between the contract and the orchestrator's domain: parses, rejects, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from google.protobuf import json_format

from agentnet.orchestrator.v1 import agent_pb2, session_pb2, turn_pb2
from agentnet.orchestrator.v1 import agent_service_pb2 as agents
from agentnet.orchestrator.v1 import session_service_pb2 as sessions
from services.orchestrator import convergence, modes
from services.orchestrator.agents.checks import all_named, as_text, check
from services.orchestrator.store import AgentFilter, SessionFilter
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import Page, next_page_token, page

_PROMPT: Final = 32_768
_NAME: Final = 255
_TEAM: Final = 100
_MAX_AGENTS: Final = 16
_MAX_ROUNDS: Final = 50
_MAX_ITERATIONS: Final = 32
_MAX_MEASURES: Final = 8
_MAX_MEASURED_ROUNDS: Final = 10
_DEFAULT_ROUNDS: Final = 3
_FIRST_VERSION: Final = "1.0.0"
_AGENT_ORDERS: Final = ("", "name", "create_time", "create_time desc")
_SESSION_ORDERS: Final = {"": True, "start_time desc": True, "start_time": False}
_NAME_FORM: Final = "a letter, then letters, digits, _ or -, at most 64 characters"
_VERSION_FORM: Final = "a semantic version such as 1.0.0"

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list request."""

    page: Page
    scope: str


def agent(found: agent_pb2.Agent, *, partial: bool = False) -> agent_pb2.Agent:
    """A checked agent; a partial one holds only changes."""
    made = agent_pb2.Agent()
    made.CopyFrom(found)
    if not partial:
        fields.matching(found.name, "agent.name", fields.NAME, form=_NAME_FORM)
        made.version = found.version or _FIRST_VERSION
        made.state = found.state or agent_pb2.AGENT_STATE_ACTIVE
        fields.required(found.system_prompt, "agent.system_prompt", limit=_PROMPT)
    if made.version:
        fields.matching(made.version, "agent.version", fields.VERSION, form=_VERSION_FORM)
    _state(found.state, "agent.state")
    made.ClearField("template")
    check(made)
    return made


def _state(value: int, field: str) -> None:
    if value not in agent_pb2.AgentState.values():
        raise InvalidArgument(f"{field} is not a state of an agent", field=field)


def move(request: agents.SetAgentStateRequest) -> tuple[str, str, agent_pb2.AgentState.ValueType]:
    """Name, version and the state to reach."""
    name, version = reference(request.name, "name")
    if not request.state:
        raise FieldRequired("state")
    _state(request.state, "state")
    return name, version, request.state


def reference(value: str, field: str) -> tuple[str, str]:
    """`Athena@1.0.0` into name and version; the version may be absent."""
    if not value:
        raise FieldRequired(field)
    name, _, version = value.partition("@")
    fields.matching(name, field, fields.NAME, form=f"{_NAME_FORM}, and perhaps @ and a version")
    if version:
        fields.matching(version, field, fields.VERSION, form=f"a name, @ and {_VERSION_FORM}")
    return name, version


def list_agents(request: agents.ListAgentsRequest) -> tuple[AgentFilter, Listing]:
    if request.order_by not in _AGENT_ORDERS:
        raise InvalidArgument("order_by is name, create_time or create_time desc", field="order_by")
    name, capability = (fields.text(getattr(request, key), key, limit=_NAME) for key in ("name", "capability"))
    chosen = AgentFilter(name, capability, request.state, request.order_by or "name")
    scope = f"agents|{chosen}"
    return chosen, Listing(page(request.page_size, request.page_token, scope=scope), scope)


def agents_response(found: Sequence[agent_pb2.Agent], asked: Listing) -> agents.ListAgentsResponse:
    shown, token = _skipped(found, asked)
    return agents.ListAgentsResponse(agents=shown, next_page_token=token)


def single(request: agents.RunAgentRequest) -> session_pb2.Session:
    reference(request.name, "name")
    given = request.HasField("input") and not request.prompt
    prompt = as_text(fields.mapping(request.input, "input", limit=_PROMPT)) if given else request.prompt
    return session_pb2.Session(
        topic_start=fields.required(prompt, "prompt", limit=_PROMPT),
        mode="single",
        strategy="round_robin",
        agents=[request.name],
        max_rounds=1,
        team=fields.text(request.team, "team", limit=_TEAM),
    )


def session(request: sessions.StartSessionRequest) -> session_pb2.Session:
    fields.required(request.topic, "topic", limit=_PROMPT)
    if not request.agents:
        raise FieldRequired("agents")
    fields.at_most(len(request.agents), "agents", limit=_MAX_AGENTS)
    names = [reference(entry, f"agents[{place}]")[0] for place, entry in enumerate(request.agents)]
    if len(set(names)) < len(names):
        raise InvalidArgument("each agent takes part once", field="agents")
    mode = request.mode or ("single" if len(names) == 1 else "brainstorm")
    fields.mapping(request.metadata, "metadata", limit=16_384)
    all_named(request.require_approval, "require_approval", limit=64)
    made = session_pb2.Session(
        topic_start=request.topic,
        mode=mode,
        strategy=request.strategy or "round_robin",
        agents=request.agents,
        max_rounds=_rounds(request, mode),
        convergence_policy=_convergence(request),
        metadata=request.metadata,
        manual_advance=request.manual_advance,
        options=_options(request.options),
        limits=_limits(request.limits),
        require_approval=request.require_approval,
        team=fields.text(request.team, "team", limit=_TEAM),
    )
    modes.check(made)
    return made


def _rounds(request: sessions.StartSessionRequest, mode: str) -> int:
    rounds = int(fields.within(request.max_rounds, "max_rounds", low=0, high=_MAX_ROUNDS))
    return modes.mode(mode).rounds or rounds or _DEFAULT_ROUNDS


def _options(given: session_pb2.SessionOptions) -> session_pb2.SessionOptions:
    for role in ("judge", "moderator", "planner"):
        if named := getattr(given, role):
            reference(named, f"options.{role}")
    fields.within(given.quorum, "options.quorum", low=0, high=1)
    fields.at_most(len(given.priorities), "options.priorities", limit=_MAX_AGENTS)
    return given


def _limits(given: session_pb2.SessionLimits) -> session_pb2.SessionLimits:
    for name in ("max_turns", "max_tokens", "max_cost_micros_usd"):
        if getattr(given, name) < 0:
            raise InvalidArgument(f"limits.{name} must not be negative", field=f"limits.{name}")
    fields.within(given.max_iterations, "limits.max_iterations", low=0, high=_MAX_ITERATIONS)
    if given.HasField("max_duration") and fields.span(given.max_duration, "limits.max_duration") <= timedelta():
        raise InvalidArgument("limits.max_duration must be above zero", field="limits.max_duration")
    return given


def _convergence(request: sessions.StartSessionRequest) -> session_pb2.ConvergencePolicy:
    given = request.convergence_policy
    threshold = fields.within(given.threshold, "convergence_policy.threshold", low=0, high=1)
    fields.at_most(len(given.measures), "convergence_policy.measures", limit=_MAX_MEASURES)
    for place, rule in enumerate(given.measures):
        field = f"convergence_policy.measures[{place}]"
        fields.within(rule.threshold, f"{field}.threshold", low=0, high=1)
        fields.within(rule.rounds, f"{field}.rounds", low=0, high=_MAX_MEASURED_ROUNDS)
    policy = session_pb2.ConvergencePolicy(
        enabled=request.convergence or given.enabled, threshold=threshold, measures=given.measures
    )
    del policy.measures[:]
    policy.measures.extend(
        convergence.rules(session_pb2.ConvergencePolicy(threshold=threshold, measures=given.measures))
    )
    if not given.measures:
        policy.threshold = policy.measures[0].threshold
    return policy


def list_sessions(request: sessions.ListSessionsRequest) -> tuple[SessionFilter, Listing]:
    if request.order_by not in _SESSION_ORDERS:
        raise InvalidArgument("order_by is start_time or start_time desc", field="order_by")
    fields.text(request.mode, "mode", limit=_NAME)
    fields.text(request.agent, "agent", limit=_NAME)
    fields.mapping(request.metadata, "metadata", limit=4_096)
    chosen = SessionFilter(
        status=request.status,
        mode=request.mode,
        agent=request.agent,
        stop_reason=request.stop_reason,
        since=_time(request, "start_time_from"),
        until=_time(request, "start_time_until"),
        metadata=json_format.MessageToDict(request.metadata),
        archived=request.archived if request.HasField("archived") else None,
        newest_first=_SESSION_ORDERS[request.order_by],
    )
    scope = f"sessions|{chosen}"
    return chosen, Listing(page(request.page_size, request.page_token, scope=scope), scope)


def _time(request: sessions.ListSessionsRequest, field: str) -> datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type] # a name from the message itself
        return None
    return fields.instant(getattr(request, field), field)


def sessions_response(found: Sequence[session_pb2.Session], asked: Listing) -> sessions.ListSessionsResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].start_time.ToDatetime(UTC).isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return sessions.ListSessionsResponse(sessions=shown, next_page_token=next_page_token(more, scope=asked.scope))


def list_turns(request: sessions.ListTurnsRequest) -> Listing:
    fields.text(request.agent, "agent", limit=_NAME)
    scope = f"turns|{request.session_id}|{request.agent}|{request.round}"
    return Listing(page(request.page_size, request.page_token, scope=scope), scope)


def turns_response(found: Sequence[turn_pb2.Turn], asked: Listing) -> sessions.ListTurnsResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].end_time.ToDatetime(UTC).isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return sessions.ListTurnsResponse(turns=shown, next_page_token=next_page_token(more, scope=asked.scope))


def watch(request: sessions.WatchSessionRequest) -> tuple[str, int]:
    if request.after_sequence < 0:
        raise InvalidArgument("after_sequence must not be negative", field="after_sequence")
    return fields.identifier(request.session_id, "session_id"), request.after_sequence


def heartbeat(now: datetime, last_sequence: int) -> bytes:
    """The bytes of a WatchSessionResponse that says the stream lives."""
    beat = sessions.Heartbeat(last_sequence=last_sequence)
    beat.time.FromDatetime(now)
    return sessions.WatchSessionResponse(heartbeat=beat).SerializeToString()


def envelope(payload: bytes) -> bytes:
    """The bytes of WatchSessionResponse around the bytes of its event, which are sent as they were written."""
    return _EVENT_TAG + _varint(len(payload)) + payload


_EVENT_TAG: Final = bytes([sessions.WatchSessionResponse.EVENT_FIELD_NUMBER << 3 | 2])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _skipped(found: Sequence[Item], asked: Listing) -> tuple[Sequence[Item], str]:
    """A page whose cursor counts what was skipped."""
    shown = found[: asked.page.size]
    skipped = asked.page.skip
    more = (str(skipped + len(shown)),) if len(found) > len(shown) else None
    return shown, next_page_token(more, scope=asked.scope)
