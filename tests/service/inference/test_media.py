"""Pictures, transcripts and speech through the whole service, from a provider that speaks OpenAI's wire format."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.inference.v1 import media_service_pb2 as pb
from services.inference.media.replay import MediaRecording, ReplayingMaker
from services.inference.peers import Ending, Metered
from services.inference.providers.contract import Usage
from services.inference.replay import Cassette, RecordingInvalid, ReplayMode
from shared.errors import MeshError, Reason, ResourceExhausted, Unavailable
from shared.monitors.enforced import Snapshot
from shared.monitors.factories import cost_limit, time_limit, token_budget
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.rpc.status import from_rpc
from tests.service.inference.calls import said, until
from tests.support.inference import MAIL
from tests.support.media import World, world
from tests.support.media_server import SOUND, Refusal, png, wav

__all__ = ("world",)

Code = grpc.StatusCode


async def refused(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc(raised.value)


async def test_pictures_come_one_by_one_and_cost_what_the_provider_counted(world: World) -> None:
    *pictures, end = await world.images(prompt="A cat", count=2, size="1024x1024", quality="high")
    assert [(one.image.media_type, one.image.data) for one in pictures] == [("image/webp", png())] * 2
    asked = {"model": "gpt-image-1", "prompt": "A cat", "n": 2, "size": "1024x1024", "quality": "high"}
    assert world.server.heard == [{"path": "/v1/images/generations"} | asked]
    assert world.server.keys == ["Bearer k-7"]
    assert world.settled == [("gpt-image-1", Usage(11, 272), Metered(), Ending.COMPLETED)]
    assert world.cost.settlements[0].payer.tier == "high"
    assert (end.spent.model, end.spent.usage.output_tokens, end.spent.cost.micros_usd) == ("gpt-image-1", 272, 544)


async def test_pictures_billed_by_the_piece_are_counted_and_leased_by_the_piece(world: World) -> None:
    world.server.revised = "A cat, write to bob@example.org"
    *pictures, end = await world.images(model="dall-e-3", prompt="A cat", count=3)
    assert [one.image.revised_prompt for one in pictures] == ["A cat, write to [REDACTED:mail]"] * 3
    assert world.cost.leased == [Metered(images=3)]
    assert world.settled == [("dall-e-3", Usage(0, 0), Metered(images=3), Ending.COMPLETED)]
    assert end.spent.images == 3


async def test_what_is_heard_is_redacted_and_its_pieces_are_kept_back(world: World) -> None:
    found = await world.heard(model="whisper-1", segments=True, language="en", prompt="names: Bob", temperature=0)
    assert (found.text, found.language, list(found.segments)) == ("Call [REDACTED:mail] at nine.", "english", [])
    (asked,) = world.server.heard
    assert (asked["file"], asked["filename"], asked["type"]) == (wav(2.4), "audio.wav", "audio/wav")
    assert (asked["language"], asked["prompt"], asked["temperature"]) == ("en", "names: Bob", "0.0")
    assert [rule for _, rule, _ in world.policy.recorded] == ["mail"]
    assert world.cost.leased == [Metered(audio_input=3)]
    assert world.settled == [("whisper-1", Usage(0, 0), Metered(audio_input=3), Ending.COMPLETED)]


async def test_sound_tokens_are_counted_apart_from_text_tokens(world: World) -> None:
    found = await world.heard(model="gpt-4o-transcribe")
    assert world.settled == [("gpt-4o-transcribe", Usage(6, 9), Metered(audio_input=24), Ending.COMPLETED)]
    assert (found.spent.audio_input_units, found.spent.usage.estimated) == (24, False)
    assert world.cost.leased[0].audio_input >= 24


async def test_where_the_provider_does_not_count_the_lease_is_paid_and_says_so(world: World) -> None:
    world.server.says_usage = False
    found = await world.heard(model="gpt-4o-transcribe", segments=True)
    assert found.spent.usage.estimated
    assert world.settled[0][2] == world.cost.leased[0] == Metered(audio_input=30)


@pytest.mark.parametrize(
    ("model", "spent", "metered"),
    [
        ("tts-1", Usage(0, 0, estimated=True), Metered(audio_output=12)),
        ("gpt-4o-mini-tts", Usage(14, 0), Metered(audio_output=101)),
    ],
)
async def test_sound_streams_as_the_provider_makes_it(world: World, model: str, spent: Usage, metered: Metered) -> None:
    *pieces, end = await world.spoken(model=model, speed=1.5, format="mp3")
    assert b"".join(one.audio.data for one in pieces) == SOUND
    assert {one.audio.media_type for one in pieces} == {"audio/mpeg"}
    assert (world.server.heard[0]["voice"], world.server.heard[0]["speed"]) == ("alloy", 1.5)
    assert world.settled == [(model, spent, metered, Ending.COMPLETED)]
    assert end.spent.model == model


async def test_what_a_rule_redacts_is_not_said(world: World) -> None:
    await world.spoken(text="Write to bob@example.org.", instructions="cheerfully")
    assert world.server.heard[0]["input"] == "Write to [REDACTED:mail]."
    assert world.server.heard[0]["instructions"] == "cheerfully"


async def test_what_a_rule_redacts_of_a_prompt_stays_here_and_what_is_empty_is_not_judged(world: World) -> None:
    mail = replace(MAIL, target=Target.PROMPT, action=Action.REDACT)
    tone = Rule("tone", RuleType.LLM_CLASSIFIER, Severity.MAJOR, target=Target.PROMPT)
    world.policy.snapshots.put_nowait(Snapshot(2, {"*": (Bundle("masks", "1.0.0", (mail, tone)),)}))
    await until(lambda: world.studio.purchases.enforcement.revision == 2)
    await world.images(prompt="ada@b.org as a cat")
    await world.heard(model="whisper-1")
    assert world.server.heard[0]["prompt"] == "[REDACTED:mail] as a cat"
    assert [text for text, *_ in world.policy.checked] == ["[REDACTED:mail] as a cat"]


async def test_a_deployment_of_azure_stands_in_the_path(world: World) -> None:
    await world.spoken(model="eu-tts")
    assert world.server.heard[0]["path"] == "/openai/deployments/my-tts/audio/speech?api-version=2025-04-01-preview"
    assert world.server.keys == ["k-7"]


@pytest.mark.parametrize("kind", ["images", "heard", "spoken"])
async def test_what_policy_blocks_goes_to_nobody_and_costs_nothing(world: World, kind: str) -> None:
    asked = {"images": {"prompt": "a bomb"}, "heard": {"prompt": "a bomb"}, "spoken": {"text": "a bomb"}}[kind]
    assert said(await refused(getattr(world, kind)(**asked))) == (Code.FAILED_PRECONDITION, "POLICY_BLOCKED")
    assert (world.server.heard, world.cost.reserved) == ([], [])
    assert [rule for _, rule, _ in world.policy.recorded] == ["bomb"]


@pytest.mark.parametrize("kind", ["images", "heard", "spoken"])
async def test_without_money_the_provider_is_not_asked(world: World, kind: str) -> None:
    asked = {"images": {"prompt": "a cat"}, "heard": {}, "spoken": {}}[kind]
    world.cost.refusals = [ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)]
    assert said(await refused(getattr(world, kind)(**asked))) == (Code.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    assert (world.server.heard, world.settled) == ([], [])


async def test_a_passing_refusal_is_asked_again_and_paid_once(world: World) -> None:
    world.server.refusals = [Refusal(429, headers={"retry-after-ms": "5"})]
    found = await world.heard(model="whisper-1")
    assert found.text
    assert [(metered.audio_input, ending) for _, _, metered, ending in world.settled] == [
        (0, Ending.CUT), (3, Ending.COMPLETED),
    ]  # fmt: skip
    assert len({one.payer.generation_id for one in world.cost.settlements}) == 2


async def test_another_model_goes_on_when_one_fails(world: World) -> None:
    world.server.refusals = [Refusal(401)]
    *pictures, end = await world.images(prompt="A cat")
    assert (len(pictures), end.spent.model) == (1, "dall-e-3")


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Refusal(400, "content_policy_violation"), (Code.FAILED_PRECONDITION, "CONTENT_FILTERED")),
        (Refusal(400, "invalid_value"), (Code.INVALID_ARGUMENT, "PROVIDER_REJECTED")),
    ],
)
async def test_a_refusal_is_typed_costs_nothing_and_quotes_nothing(
    world: World, refusal: Refusal, expected: tuple[Code, str]
) -> None:
    world.server.refusals = [refusal]
    error = await refused(world.images(prompt="A secret cat"))
    assert said(error) == expected
    assert "secret" not in error.message
    assert len(world.server.heard) == 1


@pytest.mark.parametrize("model", ["tts-1", "gpt-4o-mini-tts"])
async def test_a_sound_that_breaks_off_is_an_error_and_is_paid(world: World, model: str) -> None:
    world.server.break_after = 9000
    error = await refused(world.spoken(model=model))
    assert said(error) == (Code.UNAVAILABLE, "STREAM_BROKEN")
    ((_, _, metered, ending),) = world.settled
    assert (metered, ending) == (world.cost.leased[0], Ending.CUT)


async def test_who_leaves_in_the_middle_ends_the_call_at_the_provider_and_is_settled(world: World) -> None:
    world.server.hang = asyncio.Event()
    request = pb.SpeakRequest(model="tts-1", text="Hello there.", voice="alloy")
    call = world.stub.Speak(request, metadata=world.keys.metadata("acme"))
    await anext(aiter(call))
    call.cancel()
    await asyncio.wait_for(world.server.left.wait(), 1)
    await until(lambda: world.settled)
    assert world.settled[0][3] is Ending.CANCELLED


async def test_cost_being_away_at_the_end_costs_the_caller_nothing(world: World) -> None:
    world.cost.settle_failures = [Unavailable("cost is away")]
    found = await world.heard(model="whisper-1")
    assert found.text
    assert not found.spent.HasField("cost")


async def test_what_is_wrong_is_named_by_its_field(world: World) -> None:
    wrong = [
        ("images", {"prompt": ""}, "prompt"),
        ("images", {"prompt": "a", "count": 11}, "count"),
        ("images", {"prompt": "a", "size": "big; or"}, "size"),
        ("heard", {"audio": b""}, "audio"),
        ("heard", {"media_type": "video/mp4"}, "media_type"),
        ("heard", {"temperature": 2}, "temperature"),
        ("spoken", {"text": ""}, "text"),
        ("spoken", {"voice": ""}, "voice"),
        ("spoken", {"format": "midi"}, "format"),
        ("spoken", {"speed": 9}, "speed"),
    ]
    fields = [(await refused(getattr(world, kind)(**asked))).field for kind, asked, _ in wrong]
    assert fields == [field for _, _, field in wrong]
    assert said(await refused(world.images(prompt="a", model="tts-1"))) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")


def replaying(world: World, folder: Path, mode: ReplayMode) -> World:
    """The same world, its providers behind the cassette of the folder, read anew."""
    cassette = Cassette(folder, MediaRecording)
    cassette.load()
    inner = {name: getattr(maker, "_inner", maker) for name, maker in world.studio.makers.items()}
    world.studio.makers = {name: ReplayingMaker(maker, cassette, mode) for name, maker in inner.items()}
    return world


async def all_three(world: World) -> tuple[list[bytes], str, list[bytes]]:
    *pictures, _ = await world.images(prompt="A cat", count=2)
    heard = await world.heard(model="whisper-1", segments=True, prompt="names")
    *sound, _ = await world.spoken(model="gpt-4o-mini-tts")
    return [one.image.data for one in pictures], heard.text, [one.audio.data for one in sound]


async def test_what_was_made_is_replayed_byte_by_byte_for_nothing_with_no_provider(
    world: World, tmp_path: Path
) -> None:
    replaying(world, tmp_path / "tapes", ReplayMode.RECORD)
    made = await all_three(world)
    asked, paid = len(world.server.heard), len(world.settled)
    replaying(world, tmp_path / "tapes", ReplayMode.STRICT)
    assert [await all_three(world), await all_three(world)] == [made, made]
    assert len(world.server.heard) == asked == 3
    assert {(usage, metered) for _, usage, metered, _ in world.settled[paid:]} == {(Usage(0, 0), Metered())}
    tapes = {path.name: path.read_bytes() for path in (tmp_path / "tapes").iterdir()}
    replaying(world, tmp_path / "again", ReplayMode.RECORD)
    await all_three(world)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == tapes


async def test_strict_replay_calls_nobody_and_shows_the_nearest_recording(world: World, tmp_path: Path) -> None:
    await replaying(world, tmp_path / "tapes", ReplayMode.RECORD).images(prompt="A cat")
    replaying(world, tmp_path / "tapes", ReplayMode.STRICT)
    error = await refused(world.images(prompt="A dog"))
    assert said(error) == (Code.FAILED_PRECONDITION, "REPLAY_MISSED")
    assert '- "prompt": "A cat"' in error.facts["difference"]
    assert '+ "prompt": "A dog"' in error.facts["difference"]
    assert said(await refused(world.heard(audio=wav(9.0))))[1] == "REPLAY_MISSED"
    assert len(world.server.heard) == 1
    assert world.settled[-1][1:3] == (Usage(0, 0), Metered())


async def test_permissive_replay_asks_once_and_what_broke_is_not_kept(world: World, tmp_path: Path) -> None:
    replaying(world, tmp_path / "tapes", ReplayMode.PERMISSIVE)
    world.server.break_after = 9000
    await refused(world.spoken(model="tts-1"))
    assert not list((tmp_path / "tapes").iterdir())
    world.server.break_after = None
    first, second = [await world.spoken(model="tts-1") for _ in range(2)]
    assert [one.audio for one in first[:-1]] == [one.audio for one in second[:-1]]
    assert len(world.server.heard) == 2


async def test_a_tape_that_was_changed_is_told_when_it_is_opened(world: World, tmp_path: Path) -> None:
    await replaying(world, tmp_path / "tapes", ReplayMode.RECORD).images(prompt="A cat")
    (tape,) = (tmp_path / "tapes").iterdir()
    whole = json.loads(tape.read_text())
    for change in ({"version": 2}, {"pictures": [{"media_type": "image/png"}]}, {"sound": ["%"]}, {"colour": "red"}):
        tape.write_text(json.dumps(whole | change))
        with pytest.raises(RecordingInvalid, match=next(iter(change))):
            replaying(world, tmp_path / "tapes", ReplayMode.STRICT)


async def test_an_override_excuses_a_prompt_of_the_rules_it_names(world: World) -> None:
    world.policy.overrides = {"token-1": frozenset({"bomb"})}
    attribution = pb.Attribution(override_token="token-1")
    *pictures, _ = await world.images(prompt="a bomb", attribution=attribution)
    assert len(pictures) == 1
    *sound, _ = await world.spoken(model="tts-1", text="a bomb", attribution=attribution)
    assert sound
    attribution.override_token = "taken back"
    assert said(await refused(world.heard(prompt="a bomb", attribution=attribution)))[1] == "OVERRIDE_INVALID"
    assert len(world.server.heard) == 2


async def test_rules_over_numbers_judge_before_the_call_and_after_it(world: World) -> None:
    async def under(revision: int, *rules: Rule) -> None:
        world.policy.snapshots.put_nowait(Snapshot(revision, {"*": (Bundle("limits", "1.0.0", rules),)}))
        await until(lambda: world.studio.purchases.enforcement.revision == revision)

    await under(2, token_budget(2))
    assert said(await refused(world.images(prompt="A cat on a mat")))[1] == "POLICY_BLOCKED"
    assert (world.server.heard, world.settled) == ([], [])
    await under(3, token_budget(200))  # 283 are used
    error = await refused(world.images(prompt="A cat"))
    assert (said(error)[1], error.facts["rule"]) == ("POLICY_BLOCKED", "token_budget")
    assert world.settled == [("gpt-image-1", Usage(11, 272), Metered(), Ending.STOPPED)]
    await under(4, cost_limit(100))  # 11 + 2 * 272 micro-USD, as the lease was priced
    assert (await refused(world.images(prompt="A cat"))).facts["rule"] == "cost_limit"
    await under(7, cost_limit(29))  # two characters of 15 micro-USD
    assert (await refused(world.spoken(model="tts-1", text="Hi"))).facts["rule"] == "cost_limit"
    await under(8, time_limit(timedelta()))
    assert (await refused(world.spoken(model="tts-1"))).facts["rule"] == "time_limit"
    await under(9, token_budget(300))
    *pictures, _ = await world.images(prompt="A cat")
    assert len(pictures) == 1
    assert world.policy.recorded[-1][1:] == ("token_budget", Action.WARN)


async def test_a_replica_that_is_full_says_so(world: World) -> None:
    world.studio.limit = 0
    assert said(await refused(world.heard()))[0] is Code.RESOURCE_EXHAUSTED
