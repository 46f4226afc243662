"""Rules over the arguments of a tool call, in CEL (cel.dev): `args.amount > 100 && !(args.currency in ["EUR", "USD"])`.

An expression sees `tool` (its name), `args` (the arguments), `agent`, `roles` and `session_id`. True means a match. An
expression that cannot be evaluated matches: what is not understood is not let through. Regexes in CEL are linear.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

from shared.expressions import compiled
from shared.monitors.pattern import PatternInvalid
from shared.monitors.rules import Bundle, Rule, RuleType, Target, Verdict
from shared.monitors.stream import eased

VARIABLES: Final = frozenset({"tool", "args", "agent", "roles", "session_id"})
_FAULTS: Final = (ValueError, TypeError, KeyError, RuntimeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call about to happen."""

    tool: str
    arguments: Mapping[str, Any]
    agent: str = ""
    roles: tuple[str, ...] = ()
    session_id: str = ""


def judge_arguments(bundles: Sequence[Bundle], call: Call) -> list[Verdict]:
    """Which rules match the call, in order; a rule without an action blocks."""
    return [
        Verdict(
            rule,
            bundle.label,
            eased(rule, bundle.mode, Target.TOOL_ARGUMENTS).acts_on(Target.TOOL_ARGUMENTS),
            Target.TOOL_ARGUMENTS,
            0,
            0,
            call.tool,
        )
        for bundle in bundles
        for rule in bundle.rules
        if rule.type is RuleType.TOOL_ARGUMENTS and _matches(rule, call)
    ]


def compile_expression(text: str) -> Any:
    """The expression ready to evaluate. Raises PatternInvalid when it does not parse or asks for what is not there."""
    try:
        program = _program(text)
    except _FAULTS as error:
        raise PatternInvalid(str(error).partition("\n")[0]) from None
    unknown = sorted(set(program.variables()) - VARIABLES - set(_BOUND.findall(text)))
    if unknown:
        raise PatternInvalid(f"{unknown[0]} is not known here; known: {', '.join(sorted(VARIABLES))}")
    return program


def _matches(rule: Rule, call: Call) -> bool:
    if not fnmatchcase(call.tool, str(rule.params.get("tool", "*"))):
        return False
    known = {
        "tool": call.tool,
        "args": dict(call.arguments),
        "agent": call.agent,
        "roles": list(call.roles),
        "session_id": call.session_id,
    }
    try:
        return compile_expression(str(rule.params["when"])).execute(known) is not False
    except _FAULTS:
        return True


# Names that a macro gives to the elements of a list or the keys of a mapping.
_BOUND: Final = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*([A-Za-z_]\w*)\s*,")
_program = lru_cache(maxsize=1024)(compiled)
