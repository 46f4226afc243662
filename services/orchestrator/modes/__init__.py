"""How agents work together and who speaks next, each by name."""

from __future__ import annotations

from services.orchestrator.errors import NameUnknown
from services.orchestrator.modes.brainstorm import Brainstorm
from services.orchestrator.modes.contract import Mode, Strategy
from services.orchestrator.modes.round_robin import RoundRobin
from services.orchestrator.modes.single import Single

MODES: dict[str, Mode] = {"single": Single(), "brainstorm": Brainstorm()}
STRATEGIES: dict[str, Strategy] = {"round_robin": RoundRobin()}


def mode(name: str) -> Mode:
    """Raises NameUnknown."""
    if name not in MODES:
        known = ", ".join(sorted(MODES))
        raise NameUnknown(f"no mode {name}; this mesh runs {known}", field="mode", known=known)
    return MODES[name]


def strategy(name: str) -> Strategy:
    """Raises NameUnknown."""
    if name not in STRATEGIES:
        known = ", ".join(sorted(STRATEGIES))
        raise NameUnknown(f"no strategy {name}; this mesh runs {known}", field="strategy", known=known)
    return STRATEGIES[name]
