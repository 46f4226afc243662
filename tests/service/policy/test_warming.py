"""Models that rules name are asked before texts are: a cold one takes longer than a text may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agentnet.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from services.policy.classifiers import Classifiers
from services.policy.windows import WindowedGuardrail
from shared.monitors.rules import Bundle, Rule, RuleType, Severity
from tests.service.policy.calls import create
from tests.support.identity import Keys
from tests.support.policy import PolicyParts, ScriptedModels, served

SCREEN = Rule("screen", RuleType.LLM_CLASSIFIER, Severity.MAJOR, params={"model": "small", "threshold": 0.5})
LIKE = Rule(
    "like", RuleType.SEMANTIC_SIMILARITY, Severity.SEVERE, params={"embedding_set": "plans", "max_similarity": 1}
)
BUNDLE = Bundle("cold", "1.0.0", (SCREEN, LIKE), embedding_sets={"plans": ("the vault opens at nine",)})
DOCUMENT = """
rules:
  - {name: screen, type: llm_classifier, severity: major, params: {model: small, threshold: 0.5}}
"""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
def windowed(parts: PolicyParts) -> WindowedGuardrail:
    return WindowedGuardrail(parts.models, Classifiers(parts.classifiers))


async def test_a_model_is_asked_as_soon_as_a_bundle_in_force_names_it(keys: Keys) -> None:
    parts = PolicyParts(keys, warming=True)
    async with served(parts) as channel:
        await create(PolicyServiceStub(channel), keys, DOCUMENT, labels=("production",))
        await until(lambda: len(parts.models.rated) == 1)


async def test_each_model_and_set_is_asked_once(windowed: WindowedGuardrail, parts: PolicyParts) -> None:
    await windowed.warm([BUNDLE, BUNDLE])
    await windowed.warm([BUNDLE])
    assert (len(parts.models.rated), parts.models.embedded) == (1, 2)


async def test_a_model_that_does_not_answer_is_asked_again_a_few_times(
    windowed: WindowedGuardrail, parts: PolicyParts
) -> None:
    parts.models.away = True
    await windowed.warm([BUNDLE])
    parts.models.away = False
    await windowed.warm([BUNDLE])
    assert len(parts.models.rated) == 1


async def test_a_model_that_never_answers_is_left_alone(parts: PolicyParts) -> None:
    asked: list[str] = []

    class Away(ScriptedModels):
        async def rate(self, model: str, question: str, text: str) -> float:
            asked.append(model)
            return await super().rate(model, question, text)

    guardrail = WindowedGuardrail(Away(away=True), Classifiers(parts.classifiers))
    for _ in range(20):
        await guardrail.warm([BUNDLE])
    assert len(asked) == 6
