"""Guardrails ready made: the six every mesh needs, and sets of them for common needs.

`python -m shared.monitors.factories standard` writes a set as a document to upload.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Final

from shared.monitors.rules import Action, Bundle, Mode, Rule, RuleType, Severity

VERSION: Final = "1.0.0"


def token_budget(limit: int, *, action: Action = Action.BLOCK) -> Rule:
    """Stops a turn that used more tokens than `limit`; warns from four fifths of it on, as all resource rules do."""
    return _resource("token_budget", "tokens", limit, action)


def cost_limit(micros_usd: int, *, action: Action = Action.BLOCK) -> Rule:
    """Stops what cost more than so many millionths of a dollar."""
    return _resource("cost_limit", "cost_micros_usd", micros_usd, action)


def iteration_limit(rounds: int, *, action: Action = Action.BLOCK) -> Rule:
    """Stops what went round more often."""
    return _resource("iteration_limit", "iterations", rounds, action)


def tool_call_limit(calls: int, *, action: Action = Action.BLOCK) -> Rule:
    """Stops what called tools more often."""
    return _resource("tool_call_limit", "tool_calls", calls, action)


def time_limit(span: timedelta, *, action: Action = Action.BLOCK) -> Rule:
    """Stops what took longer."""
    return _resource("time_limit", "seconds", span.total_seconds(), action)


def content_and_pii(*, severity: Severity = Severity.SEVERE) -> tuple[Rule, ...]:
    """Personal data, keys, and attempts to inject: out of answers, and out of prompts where they are attacks."""
    return (
        Rule("pii", RuleType.PII, severity, action=Action.REDACT),
        Rule("keys", RuleType.SECRET, Severity.SEVERE, action=Action.REDACT),
        Rule("injection", RuleType.INJECTION, severity),
    )


def minimal_guardrails() -> Bundle:
    """Keys never leave; nothing else is in the way."""
    return Bundle("minimal", VERSION, (content_and_pii()[1],), mode=Mode.PERMISSIVE)


def standard_guardrails() -> Bundle:
    """All six, with limits a conversation does not meet and a loop does."""
    return Bundle("standard", VERSION, (
        token_budget(200_000), cost_limit(1_000_000), iteration_limit(50), tool_call_limit(100),
        time_limit(timedelta(minutes=10)), *content_and_pii(),
    ))  # fmt: skip


def strict_guardrails() -> Bundle:
    """All six, tight: for what runs unattended."""
    return Bundle("strict", VERSION, (
        token_budget(20_000), cost_limit(100_000), iteration_limit(10), tool_call_limit(10),
        time_limit(timedelta(minutes=1)), *content_and_pii(),
    ))  # fmt: skip


def permissive_guardrails() -> Bundle:
    """All six, telling and not stopping; personal data and keys are redacted all the same."""
    standard = standard_guardrails()
    return Bundle("permissive", VERSION, standard.rules, mode=Mode.PERMISSIVE)


SETS: Final = {
    "minimal": minimal_guardrails,
    "standard": standard_guardrails,
    "strict": strict_guardrails,
    "permissive": permissive_guardrails,
}


def document(bundle: Bundle) -> str:
    """A bundle of these guardrails as JSON that can be uploaded."""
    rules = [
        {"name": rule.name, "type": rule.type, "severity": rule.severity}
        | ({"action": rule.action} if rule.action else {})
        | ({"params": dict(rule.params)} if rule.params else {})
        for rule in bundle.rules
    ]
    return json.dumps({"mode": bundle.mode, "rules": rules}, indent=1)


def main(names: list[str]) -> int:
    """Writes the set that is named; 2 when there is none of that name."""
    if len(names) == 1 and names[0] in SETS:
        sys.stdout.write(f"{document(SETS[names[0]]())}\n")
        return 0
    sys.stderr.write(f"usage: python -m shared.monitors.factories {'|'.join(SETS)}\n")
    return 2


def _resource(name: str, resource: str, limit: float, action: Action) -> Rule:
    params = {"resource": resource, "limit": limit}
    return Rule(name, RuleType.RESOURCE, Severity.MAJOR, action=action, params=params)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
