"""Recordings: the same call is the same bytes; what is not recorded is told by the nearest that is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.inference.errors import ReplayMissed, StreamBroken
from services.inference.providers.contract import (
    Chunk,
    FinishReason,
    ModelCall,
    Role,
    Sampling,
    ToolDelta,
    Usage,
    said,
)
from services.inference.replay import Cassette, RecordingInvalid, ReplayingProvider, ReplayMode, TextRecording

CALL = ModelCall("m", (said(Role.USER, "Hello?"),), Sampling(temperature=0.5), 9)
CHUNKS = [
    Chunk("Grüße ", 2, reasoning="hm"),
    Chunk(tools=(ToolDelta(0, "c1", "look", '{"a": 1}'),), token_count=1),
    Chunk(finish_reason=FinishReason.TOOL_CALLS, usage=Usage(3, 3, 1, 1)),
]


@dataclass(slots=True)
class Told:
    """Says its chunks, counts its calls, and may break."""

    chunks: list[Chunk] = field(default_factory=lambda: list(CHUNKS))
    calls: int = 0
    breaks: bool = False
    name: str = "told"

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        self.calls += 1
        for chunk in self.chunks:
            yield chunk
        if self.breaks:
            raise StreamBroken("cut")


def cassette(folder: Path) -> Cassette[TextRecording]:
    found = Cassette(folder, TextRecording)
    found.load()
    return found


async def heard(provider: ReplayingProvider, call: ModelCall = CALL) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(call)]


async def test_a_recording_is_replayed_as_it_was_and_costs_no_call(tmp_path: Path) -> None:
    model = Told()
    assert await heard(ReplayingProvider(model, cassette(tmp_path), ReplayMode.RECORD)) == CHUNKS
    replaying = ReplayingProvider(model, cassette(tmp_path), ReplayMode.STRICT)
    assert [await heard(replaying) for _ in range(3)] == [CHUNKS] * 3
    assert model.calls == 1


async def test_a_replay_is_a_hundred_times_faster_than_a_model_at_twenty_milliseconds_a_token(tmp_path: Path) -> None:
    class Paced(Told):
        async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
            async for chunk in Told.stream(self, call):
                await asyncio.sleep(0.02)
                yield chunk

    model = Paced([Chunk(f"word {place} ", 1) for place in range(20)] + CHUNKS[-1:])
    loop = asyncio.get_running_loop()

    async def timed(provider: ReplayingProvider) -> tuple[float, list[Chunk]]:
        began = loop.time()
        chunks = await heard(provider)
        return loop.time() - began, chunks

    spoke, told = await timed(ReplayingProvider(model, cassette(tmp_path), ReplayMode.RECORD))
    replaying = ReplayingProvider(model, cassette(tmp_path), ReplayMode.STRICT)
    replays = [await timed(replaying) for _ in range(20)]
    assert [chunks for _, chunks in replays] == [told] * 20
    assert spoke / min(seconds for seconds, _ in replays) > 100


async def test_the_same_call_makes_the_same_file(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        await heard(ReplayingProvider(Told(), cassette(tmp_path / folder), ReplayMode.RECORD))
    (one,), (two,) = (list((tmp_path / folder).iterdir()) for folder in ("one", "two"))
    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())


async def test_time_limits_are_no_part_of_the_call(tmp_path: Path) -> None:
    await heard(ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.RECORD))
    hurried = replace(CALL, timeouts=replace(CALL.timeouts, total=CALL.timeouts.idle))
    assert await heard(ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.STRICT), hurried) == CHUNKS


async def test_strict_replay_shows_the_nearest_recording_and_the_difference(tmp_path: Path) -> None:
    await heard(ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.RECORD))
    model = Told()
    other = replace(CALL, messages=(said(Role.USER, "Hello!"),))
    with pytest.raises(ReplayMissed) as raised:
        await heard(ReplayingProvider(model, cassette(tmp_path), ReplayMode.STRICT), other)
    facts = raised.value.facts
    assert model.calls == 0
    assert (tmp_path / f"{facts['nearest']}.json").exists()
    assert '-     "text": "Hello?"' in facts["difference"]
    assert '+     "text": "Hello!"' in facts["difference"]
    assert facts["nearest"][:12] in raised.value.message  # not every door has room for facts
    assert raised.value.message.endswith(facts["difference"])


async def test_strict_replay_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReplayMissed, match="nothing is recorded"):
        await heard(ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.STRICT))


async def test_permissive_replay_asks_and_records_what_it_misses(tmp_path: Path) -> None:
    model = Told()
    provider = ReplayingProvider(model, cassette(tmp_path), ReplayMode.PERMISSIVE)
    assert [await heard(provider) for _ in range(2)] == [CHUNKS] * 2
    assert model.calls == 1


async def test_what_broke_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(StreamBroken):
        await heard(ReplayingProvider(Told(breaks=True), cassette(tmp_path), ReplayMode.RECORD))
    assert list(tmp_path.iterdir()) == []


async def recorded(folder: Path) -> Path:
    await heard(ReplayingProvider(Told(), cassette(folder), ReplayMode.RECORD))
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize(
    ("change", "said_of_it"),
    [
        ({"version": 2}, "version"),
        ({"chunks": [{"colour": "red"}]}, "chunks.0.colour"),
        ({"request": {}}, "do not belong together"),
    ],
    ids=["another version", "a word too many", "an edited request"],
)
async def test_a_recording_that_is_none_is_told_when_opened(
    tmp_path: Path, change: dict[str, object], said_of_it: str
) -> None:
    path = await recorded(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordingInvalid, match=said_of_it) as raised:
        cassette(tmp_path)
    assert path.name in str(raised.value)


async def test_a_recording_under_another_name_is_told(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    path.rename(path.with_name("other.json"))
    with pytest.raises(RecordingInvalid, match="do not belong together"):
        cassette(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        replace(CALL, model="n"),
        replace(CALL, messages=(said(Role.SYSTEM, "Hello?"),)),
        replace(CALL, messages=(*CALL.messages, said(Role.USER, ""))),
        replace(CALL, sampling=Sampling(temperature=0.6)),
        replace(CALL, sampling=Sampling(temperature=0.5, seed=1)),
        replace(CALL, sampling=Sampling(temperature=0.5, stop=(".",))),
        replace(CALL, max_output_tokens=8),
    ],
    ids=["model", "role", "one message more", "temperature", "seed", "stop", "length"],
)
async def test_whatever_may_change_the_answer_is_part_of_the_call(tmp_path: Path, other: ModelCall) -> None:
    await recorded(tmp_path)
    with pytest.raises(ReplayMissed):
        await heard(ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.STRICT), other)


async def test_who_stops_listening_half_way_records_nothing(tmp_path: Path) -> None:
    stream = ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.RECORD).stream(CALL)
    assert await anext(stream) == CHUNKS[0]
    await stream.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_recording_again_takes_the_place_of_what_was_said_before(tmp_path: Path) -> None:
    await recorded(tmp_path)
    other = Told(chunks=[Chunk("Adieu", 1)])
    await heard(ReplayingProvider(other, cassette(tmp_path), ReplayMode.RECORD))
    assert await heard(ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.STRICT)) == other.chunks
    assert other.calls == 1


async def test_what_a_writer_died_over_is_not_read(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    path.rename(path.with_suffix(".4711.part"))
    with pytest.raises(ReplayMissed, match="nothing is recorded"):
        await heard(ReplayingProvider(Told(), cassette(tmp_path), ReplayMode.STRICT))


async def test_a_replay_neither_asks_nor_writes_however_many_read_at_once(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    before, model = path.read_bytes(), Told()
    replaying = ReplayingProvider(model, cassette(tmp_path), ReplayMode.PERMISSIVE)
    assert await asyncio.gather(*(heard(replaying) for _ in range(9))) == [CHUNKS] * 9
    assert (model.calls, path.read_bytes(), len(list(tmp_path.iterdir()))) == (0, before, 1)
