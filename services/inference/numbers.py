"""Rules over numbers, the guardrails of a turn: what it used, cost and took so far, and how often it went round."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from services.inference.providers.contract import Message, Role
from shared.monitors.facts import judge_facts
from shared.monitors.finished import Status
from shared.monitors.rules import MEASURED, PASS, Action, Bundle, Target, Verdict

_STOPS: Final = (Action.BLOCK, Action.REQUIRE_APPROVAL)


def with_number_rules(bundles: Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Those that judge numbers."""
    return tuple(bundle for bundle in bundles if any(rule.type in MEASURED for rule in bundle.rules))


class NumberRules:
    """Those of one generation. Each says the same thing once."""

    def __init__(self, bundles: tuple[Bundle, ...], messages: Sequence[Message]) -> None:
        self._bundles = bundles
        self._told: set[tuple[str, str, Action]] = set()
        self._seconds = 0.0
        self.round = rounds(messages) if bundles else {}
        """What the prompt says of the turn: `iterations`, `tool_calls`."""

    def __bool__(self) -> bool:
        return bool(self._bundles)

    def judge(self, facts: Mapping[str, float], target: Target) -> tuple[list[Verdict], Verdict | None]:
        """What is new to tell, and the rule that stops the generation."""
        began = time.perf_counter()
        found = [one.verdict for one in judge_facts(self._bundles, {**self.round, **facts}, target)]
        told = [verdict for verdict in found if _key(verdict) not in self._told]
        self._told.update(map(_key, told))
        self._seconds += time.perf_counter() - began
        return told, next((verdict for verdict in found if verdict.action in _STOPS), None)

    def statuses(self) -> list[Status]:
        """Each rule, its worst outcome so far and its share of the seconds."""
        names = [rule.name for bundle in self._bundles for rule in bundle.rules if rule.type in MEASURED]
        told = [(name, action.value, 0.0) for _, name, action in self._told]
        return [*((name, PASS, self._seconds / len(names)) for name in names), *told]


def rounds(messages: Sequence[Message]) -> dict[str, float]:
    """How often the model was asked since a person or program last said something, and how often it called tools."""
    after = [place for place, message in enumerate(messages) if message.role is Role.USER and message.text]
    turn = messages[after[-1] :] if after else messages
    asked = [message for message in turn if message.role is Role.ASSISTANT]
    return {"iterations": len(asked) + 1, "tool_calls": sum(len(message.tool_calls) for message in asked)}


def _key(verdict: Verdict) -> tuple[str, str, Action]:
    return verdict.bundle, verdict.rule.name, verdict.action
