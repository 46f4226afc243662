"""How agents work together and who speaks next, each by name; plug-ins add to both."""

from __future__ import annotations

from typing import Final

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.modes import cast
from services.orchestrator.modes.adaptive import Adaptive
from services.orchestrator.modes.brainstorm import Brainstorm
from services.orchestrator.modes.consensus import Consensus
from services.orchestrator.modes.contract import FLOOR, Mode, Part, Phase, Strategy
from services.orchestrator.modes.debate import Debate
from services.orchestrator.modes.moderator import Moderator
from services.orchestrator.modes.named import Named
from services.orchestrator.modes.parallel import Parallel
from services.orchestrator.modes.planning import Planning
from services.orchestrator.modes.priority import Priority
from services.orchestrator.modes.rivals import Competition, Ensemble
from services.orchestrator.modes.round_robin import RoundRobin
from services.orchestrator.modes.single import Single
from services.orchestrator.modes.workflow import Workflow
from services.orchestrator.state import SessionState

ADAPTIVE: Final = "adaptive"
_FIRST: Final = "round_robin"

mode: Final[Named[Mode]] = Named(
    "mode",
    "agentnet.modes",
    {
        "single": Single(),
        "brainstorm": Brainstorm(),
        "debate": Debate(),
        "consensus": Consensus(),
        "workflow": Workflow(),
        "competition": Competition(),
        "ensemble": Ensemble(),
        "planning": Planning(),
    },
)
strategy: Final[Named[Strategy]] = Named(
    "strategy",
    "agentnet.strategies",
    {
        _FIRST: RoundRobin(),
        "parallel": Parallel(),
        "priority": Priority(),
        "moderator": Moderator(),
        ADAPTIVE: Adaptive(),
    },
)


def check(session: session_pb2.Session) -> None:
    """Raises NameUnknown and OptionsContradict for a session that could not be run as it was asked for."""
    chosen, order = mode(session.mode), strategy(session.strategy)
    count = len(session.agents)
    if count > chosen.most_agents:
        raise cast.contradiction(session, "agents", f"mode {session.mode} takes exactly one agent")
    if count < chosen.least_agents:
        raise cast.contradiction(session, "agents", f"mode {session.mode} takes {chosen.least_agents} agents or more")
    if not chosen.takes_strategy and session.strategy != _FIRST:
        raise cast.contradiction(session, "strategy", f"mode {session.mode} has an order of its own")
    cast.check(session, judged=chosen.judged)
    order.check(session)
    if not cast.speakers(session):
        raise cast.contradiction(session, "options.moderator", "a moderator needs somebody to lead")
    chosen.check(session)


def phase_of(state: SessionState, number: int, part: Part) -> Phase:
    """The phase a part belongs to; for who leads it, the phase it leads."""
    name = part.phase.removesuffix(FLOOR)
    chosen = mode(state.session.mode)
    known = (*chosen.phases(state, number), *chosen.closing(state))
    return next(phase for phase in known if name == phase.name or any(one.phase == name for one in phase.parts))


def led(part: Part) -> bool:
    """Whether a part only says who speaks next."""
    return part.phase.endswith(FLOOR)
