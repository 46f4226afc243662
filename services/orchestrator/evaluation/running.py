"""One case: its session begun or gone on with, heard to its end, measured, scored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from agentnet.orchestrator.v1 import evaluation_service_pb2
from services.orchestrator.errors import CaseGivenUp, ScenarioTimedOut
from services.orchestrator.evaluation import document, hearing, judging, metrics
from services.orchestrator.evaluation.evaluations import Evaluations
from services.orchestrator.evaluation.judging import Meaning, Observed
from services.orchestrator.evaluation.metrics import Vector
from services.orchestrator.evaluation.peers import MeaningPeer, SessionsPeer
from services.orchestrator.evaluation.store import CaseLease, Work
from services.orchestrator.evaluation.suite import Scenario, SemanticScore, Suite
from shared.errors import Internal, MeshError, Unavailable
from shared.identity import Principal
from shared.log import log

_AGAIN_SECONDS: Final = 0.5
_ENDING_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Cases:
    """Runs cases. The session's request_id is the case's id: whoever runs the case again goes on with the same one."""

    evaluations: Evaluations
    sessions: SessionsPeer
    meaning: MeaningPeer
    max_tries: int

    async def run(self, lease: CaseLease) -> None:
        """Runs a case and keeps its score. Raises LeaseLost, and Unavailable when the mesh does not answer now."""
        store = self.evaluations.store
        work = await store.work(lease)
        if work is None:
            await store.drop(lease)
            return
        suite = document.read(work.document)
        scenario = suite.scenarios[work.place]
        found = await self._observed(lease, work, scenario)
        meaning = await self._meaning(work.starter, suite, scenario, found)
        score = judging.score(scenario, found, meaning, repetition=work.repetition)
        await self._rate(lease, work.starter, scenario, score)
        baseline = await self.evaluations.baseline(lease.tenant, work.baseline_id)
        await store.finish(lease, score, lambda whole: self.evaluations.completed(whole, baseline))
        log.info("evaluation.case_scored", case_id=lease.case_id, session_id=score.session_id, passed=score.passed)

    async def _rate(
        self, lease: CaseLease, caller: Principal, scenario: Scenario, score: evaluation_service_pb2.ScenarioScore
    ) -> None:
        """Tells the reputation of those who spoke; what ended before its end counts there already, as what it is."""
        if score.HasField("failure") or not score.session_id:
            return
        for place, name in enumerate(scenario.agents):
            agent, request_id = name.partition("@")[0], f"{lease.case_id}-{place}"
            try:
                await self.sessions.rate(
                    caller, agent, passed=score.passed, session_id=score.session_id, note=scenario.name,
                    request_id=request_id,
                )  # fmt: skip
            except MeshError as error:
                if error.retryable:
                    raise
                log.warning("evaluation.not_rated", agent=agent, reason=error.reason_name)

    async def _observed(self, lease: CaseLease, work: Work, scenario: Scenario) -> Observed:
        if lease.tries > self.max_tries:
            return hearing.refused(CaseGivenUp("the case broke off too often", tries=str(lease.tries)))
        try:
            session_id = await self.sessions.start(work.starter, scenario, request_id=lease.case_id)
        except MeshError as error:
            if error.retryable:
                raise
            return hearing.refused(error)
        return await self._heard(work.starter, scenario, session_id)

    async def _heard(self, caller: Principal, scenario: Scenario, session_id: str) -> Observed:
        try:
            async with asyncio.timeout(scenario.timeout_seconds):
                return await self._to_its_end(caller, session_id)
        except TimeoutError:
            await self.sessions.cancel(caller, session_id)
            limit = str(scenario.timeout_seconds)
            late = ScenarioTimedOut(f"the session took longer than {limit} seconds", timeout_seconds=limit)
            async with asyncio.timeout(_ENDING_SECONDS):
                return replace(await self._to_its_end(caller, session_id), failure=late.failure())

    async def _to_its_end(self, caller: Principal, session_id: str) -> Observed:
        """Hears the log from its start, on where it broke off."""
        found, after = Observed(session_id=session_id), 0
        while not found.stop_reason:
            try:
                async with aclosing(self.sessions.watch(caller, session_id, after=after)) as events:
                    async for event in events:
                        found, after = hearing.after(found, event), event.sequence
            except (Unavailable, Internal):
                await asyncio.sleep(_AGAIN_SECONDS)
        return found

    async def _meaning(self, caller: Principal, suite: Suite, scenario: Scenario, found: Observed) -> Meaning:
        """One call of inference for the topic, the turns and the references the suite holds."""
        spoken = [turn.content for turn in found.turns if turn.content.strip()]
        if not spoken:
            return Meaning()
        written = _references(suite, scenario)
        vectors = await self.meaning.embed(caller, [scenario.topic, *spoken, *written.values()])
        topic, turns = vectors[0], vectors[1 : len(spoken) + 1]
        near = dict(zip(written, vectors[len(spoken) + 1 :], strict=True))
        likeness = {
            place: _nearest(turns, near[place]) if place in near else await self._in_memory(caller, criterion, spoken)
            for place, criterion in enumerate(scenario.success_criteria)
            if isinstance(criterion, SemanticScore)
        }
        found_ones = {place: score for place, score in likeness.items() if score is not None}
        return Meaning(metrics.coherence(topic, turns), found_ones)

    async def _in_memory(self, caller: Principal, criterion: SemanticScore, spoken: Sequence[str]) -> float | None:
        scores = [await self.meaning.nearness(caller, criterion.reference_id or "", text) for text in spoken]
        known = [score for score in scores if score is not None]
        return max(known) if known else None


def _references(suite: Suite, scenario: Scenario) -> dict[int, str]:
    """The texts of those semantic criteria whose reference stands in the suite, by the criterion's place."""
    found = {}
    for place, criterion in enumerate(scenario.success_criteria):
        if isinstance(criterion, SemanticScore):
            text = criterion.reference or suite.references.get(criterion.reference_id or "")
            if text is not None:
                found[place] = text
    return found


def _nearest(turns: Sequence[Vector], reference: Vector) -> float:
    return max(metrics.cosine(turn, reference) for turn in turns)
