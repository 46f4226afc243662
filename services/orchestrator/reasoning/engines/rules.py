"""The engine "rules": the first rule whose CEL condition holds gives the answer; no model, no money, always the same.

Its config: {"rules": [{"when": "asked.contains('refund')", "answer": "…"}, …], "otherwise": "…"}. A condition sees
`asked` (the prompt's last line), `json` (the same parsed, or null) and `said` (all lines, oldest first). In an answer
`{{json.order.id}}` stands for what the JSON has there.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from services.orchestrator.errors import EngineFailed
from services.orchestrator.graphs.conditions import parsed
from services.orchestrator.reasoning.engines.contract import Generated, Question, text
from shared.expressions import compiled

_TROUBLE: Final = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError)
_SLOT: Final = re.compile(r"\{\{\s*(json|asked)((?:\.[A-Za-z0-9_]+)*)\s*\}\}")


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    when: str = Field(min_length=1, max_length=2000)
    answer: str = Field(min_length=1, max_length=32_768)
    name: str = ""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rules: list[_Rule] = Field(min_length=1, max_length=500)
    otherwise: str = ""


class Rules:
    """Answers by rules, compiled once."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError when the config is wrong or a condition does not compile."""
        parsed_config = _Config.model_validate(config)
        self._otherwise = parsed_config.otherwise
        self._rules = [(rule, _compiled(place, rule.when)) for place, rule in enumerate(parsed_config.rules)]

    async def generate(self, question: Question) -> AsyncGenerator[Generated, None]:
        answer = self._answer(question)
        for start in range(0, len(answer), 64):
            yield text(answer[start : start + 64])

    def _answer(self, question: Question) -> str:
        facts = {
            "asked": question.asked,
            "json": parsed(question.asked),
            "said": [line.text for line in question.lines],
        }
        for place, (rule, program) in enumerate(self._rules):
            if _holds(program, facts, rule.name or f"rules[{place}]"):
                return _filled(rule.answer, facts)
        if not self._otherwise:
            raise EngineFailed("no rule fits, and the engine has no `otherwise`", engine="rules")
        return _filled(self._otherwise, facts)


def _compiled(place: int, expression: str) -> Any:
    try:
        return compiled(expression)
    except _TROUBLE as error:
        why = str(error).splitlines()[0][:200]
        raise ValueError(f"rules[{place}].when does not compile: {why}") from None


def _holds(program: Any, facts: dict[str, Any], name: str) -> bool:
    """A condition that asks for what the JSON has not does not hold."""
    try:
        value = program.execute(facts)
    except _TROUBLE:
        return False
    if not isinstance(value, bool):
        raise EngineFailed(f"the condition of {name} is not true or false", engine="rules")
    return value


def _filled(answer: str, facts: Mapping[str, Any]) -> str:
    def value(slot: re.Match[str]) -> str:
        found = facts[slot[1]]
        for part in slot[2].split(".")[1:]:
            found = found.get(part, "") if isinstance(found, dict) else ""
        return str(found)

    return _SLOT.sub(value, answer)
