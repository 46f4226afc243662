"""Who plays which part in a session, and which options contradict each other."""

from __future__ import annotations

from typing import Final

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.errors import OptionsContradict

_ADAPTIVE: Final = "adaptive"
ROLES: Final = ("judge", "moderator", "planner")
_LETTERS: Final = "ABCDEFGHIJKLMNOP"
# A mode that needs a judge finds one among this many.
_ENOUGH_FOR_A_JUDGE: Final = 3


def short(agent: str) -> str:
    """`Athena@1.0.0` as others call it."""
    return agent.partition("@")[0]


def of(session: session_pb2.Session, role: str) -> str:
    """The agent in a role, as it stands among the session's agents; empty: nobody."""
    wanted = short(getattr(session.options, role))
    return next((agent for agent in session.agents if short(agent) == wanted), "") if wanted else ""


def judge(session: session_pb2.Session) -> str:
    """Who judges: the one named, else the last of three or more."""
    if named := of(session, "judge"):
        return named
    debaters = [agent for agent in session.agents if agent != of(session, "moderator")]
    return debaters[-1] if len(debaters) >= _ENOUGH_FOR_A_JUDGE else ""


def speakers(session: session_pb2.Session, *without: str) -> tuple[str, ...]:
    """Who takes part: everyone but who leads, and those given."""
    aside = {of(session, "moderator"), *without}
    return tuple(agent for agent in session.agents if agent not in aside)


def lettered(agents: tuple[str, ...]) -> dict[str, str]:
    """Letters for contributions that are judged without regard to who made them."""
    return dict(zip(_LETTERS, agents, strict=False))


def pin(session: session_pb2.Session) -> None:
    """Names the roles as the session's agents are named, versions pinned."""
    for role in ROLES:
        setattr(session.options, role, of(session, role))


def check(session: session_pb2.Session, *, judged: bool) -> None:
    """Raises OptionsContradict, whatever the mode."""
    options = session.options
    for role in ROLES:
        named = getattr(options, role)
        if named and not of(session, role):
            raise contradiction(session, f"options.{role}", f"the {role} {named} is none of the agents")
    if options.judge and not judged:
        raise contradiction(session, "options.judge", f"mode {session.mode} has no judge")
    if options.planner and session.mode != "planning":
        raise contradiction(session, "options.planner", f"mode {session.mode} has no planner")
    if options.moderator and session.strategy not in ("moderator", _ADAPTIVE):
        raise contradiction(session, "options.moderator", "a moderator leads only in strategy moderator or adaptive")
    if options.moderator and short(options.moderator) == short(options.judge):
        raise contradiction(session, "options.judge", "who leads may not judge")
    if options.priorities and session.strategy not in ("priority", _ADAPTIVE):
        raise contradiction(session, "options.priorities", "priorities count only in strategy priority or adaptive")
    if options.aggregate and session.mode != "ensemble":
        raise contradiction(session, "options.aggregate", f"mode {session.mode} puts no answers together")
    if options.quorum and session.mode != "consensus":
        raise contradiction(session, "options.quorum", f"mode {session.mode} takes no votes")


def contradiction(session: session_pb2.Session, field: str, message: str) -> OptionsContradict:
    return OptionsContradict(message, field=field, mode=session.mode, strategy=session.strategy)
