"""A reader of a submitted generation, and what breaks while it reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentnet.inference.v1 import generation_pb2 as gen
from agentnet.inference.v1 import queue_service_pb2 as queue
from services.gateway.facades import submitted
from services.gateway.facades.ask import AnswerUndone, Began, Ended, Said
from services.gateway.facades.submitted import Submitted
from shared.errors import MeshError, NotFound, Unavailable


class Models:
    """Two words, of which the connection carries one; runs as they are told one after the other."""

    def __init__(self, *runs: str, cut: type[MeshError] = Unavailable) -> None:
        self.runs = list(runs)
        self.cut = cut
        self.asked: list[tuple[str, int]] = []
        self.away = 1

    async def submitted(self, name: str) -> queue.GetSubmittedGenerationResponse:
        if self.away:
            self.away -= 1
            raise Unavailable("starting")
        running = self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]
        state = queue.SUBMITTED_STATE_RUNNING
        return queue.GetSubmittedGenerationResponse(generation_id=name, state=state, running_id=running)

    async def attach(self, name: str, *, after: int) -> AsyncGenerator[gen.GenerationEvent, None]:
        self.asked.append((name, after))
        events = (
            gen.GenerationEvent(sequence=1, started=gen.GenerationStarted(model="words")),
            gen.GenerationEvent(sequence=2, text=gen.TextProduced(text="Hello, ")),
            gen.GenerationEvent(sequence=3, text=gen.TextProduced(text="you")),
            gen.GenerationEvent(sequence=4, finished=gen.GenerationFinished()),
        )
        for event in events[after:]:
            yield event
            if event.sequence == 2:
                raise self.cut("the connection broke")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitted, "_PAUSES", ())
    monkeypatch.setattr(submitted, "_LONGEST_PAUSE", 0)


async def read(models: Any, **given: Any) -> list[Any]:
    return [piece async for piece in Submitted(models, "gen_1", **given).pieces()]


async def test_a_broken_connection_is_read_on_after_what_was_seen() -> None:
    models = Models("gen_1")
    pieces = await read(models)
    assert [type(piece) for piece in pieces] == [Began, Said, Said, Ended]
    assert models.asked == [("gen_1", 0), ("gen_1", 2)]


async def test_another_run_is_not_told_to_who_was_shown_the_first() -> None:
    with pytest.raises(AnswerUndone):
        await read(Models("gen_1", "gen_1-run2"))
    with pytest.raises(AnswerUndone):
        await read(Models("gen_1", cut=NotFound), said=True)


async def test_that_it_starts_anew_is_told_once_it_did() -> None:
    """Who reads again at once would be shown the dead run again."""
    models = Models("gen_1", "gen_1", "gen_1", "gen_1-run2", "later", cut=NotFound)
    with pytest.raises(AnswerUndone):
        await read(models)
    assert models.runs == ["later"]
