"""Films: whole to those that watch, as pictures to those that see, and what sounds cost."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentnet.inference.v1 import message_pb2
from services.inference import prompt
from services.inference.canonical import canonical, digest
from services.inference.catalog import Ability, CatalogInvalid, checked
from services.inference.errors import ModelUnable
from services.inference.providers.anthropic import MessagesDialect
from services.inference.providers.contract import (
    Film,
    Frame,
    Media,
    MediaKind,
    Message,
    ModelCall,
    Role,
    Sampling,
    Text,
    Usage,
    estimate_input,
)
from services.inference.providers.openai_chat import ChatDialect
from services.inference.providers.openai_responses import ResponsesDialect
from services.inference.providers.sse import ServerEvent
from services.inference.providers.synthetic import SyntheticProvider
from services.inference.route import Model, Router
from shared.errors import InvalidArgument

WHOLE = Media(MediaKind.VIDEO, "video/mp4", b"mp4", name="walk.mp4")
FRAMES = tuple(Frame(Media(MediaKind.IMAGE, "image/png", bytes([n])), timedelta(seconds=n * 1.5)) for n in range(2))
WATCHES = Model("watches", "p", abilities=frozenset({Ability.VIDEO}))
SEES = Model("sees", "p", abilities=frozenset({Ability.IMAGE}))
READS = Model("reads", "p")


def call(*parts: Any) -> ModelCall:
    return ModelCall("m", (Message(Role.USER, parts),), Sampling(), 64)


def asked(model: Model, film: Film, *fallback: Model) -> list[ModelCall]:
    """What each model of the chain is asked."""
    router = Router([model, *fallback], {"p": SyntheticProvider(timedelta())}, default=model.name)
    request = call(Text("What happens?"), film)
    chain = router.chain(model, request, fallback=[one.name for one in fallback])
    return [target.call(request) for target in chain]


def content(call: ModelCall) -> Any:
    return ChatDialect().request(call).body["messages"][0]["content"]


def test_who_watches_is_given_the_film_in_its_servers_words() -> None:
    (found,) = asked(WATCHES, Film(WHOLE, FRAMES))
    url = f"data:video/mp4;base64,{base64.b64encode(b'mp4').decode()}"
    assert content(found) == [
        {"type": "text", "text": "What happens?"}, {"type": "video_url", "video_url": {"url": url}},
    ]  # fmt: skip


def test_who_watches_may_fetch_it_from_its_address() -> None:
    film = Film(Media(MediaKind.VIDEO, "video/mp4", url="https://example.org/walk.mp4"))
    (found,) = asked(WATCHES, film)
    assert content(found)[1] == {"type": "video_url", "video_url": {"url": "https://example.org/walk.mp4"}}


def test_who_only_sees_is_given_its_pictures_with_their_times() -> None:
    (found,) = asked(SEES, Film(WHOLE, FRAMES, "walk"))
    kinds = [(part["type"], part.get("text", "")) for part in content(found)]
    assert kinds == [
        ("text", "What happens?"), ("text", "[walk, 0.0 s]"), ("image_url", ""), ("text", "[walk, 1.5 s]"), ("image_url", ""),
    ]  # fmt: skip


def test_who_cannot_take_it_is_refused_and_left_out_of_the_chain() -> None:
    with pytest.raises(ModelUnable) as raised:
        asked(SEES, Film(WHOLE))
    assert raised.value.facts["missing"] == "video"
    with pytest.raises(ModelUnable):
        asked(READS, Film(None, FRAMES))
    assert len(asked(WATCHES, Film(WHOLE, FRAMES), SEES, READS)) == 2


def test_two_films_are_two_calls_to_caches_and_recordings() -> None:
    other = replace(WHOLE, data=b"mp5")
    films = [Film(WHOLE), Film(other), Film(WHOLE, FRAMES), Film(None, FRAMES), Film(None, FRAMES[:1])]
    assert len({digest(canonical(call(film))) for film in films}) == len(films)


def test_a_film_is_leased_as_more_than_its_words() -> None:
    assert estimate_input(call(Film(WHOLE))) > estimate_input(call(Film(None, FRAMES))) > 1000


def _message(**video: Any) -> message_pb2.Message:
    part = message_pb2.ContentPart(video=message_pb2.Video(**video))
    return message_pb2.Message(role=message_pb2.ROLE_USER, content=[part])


PNG = message_pb2.Media(media_type="image/png", data=b"png")


def test_a_film_is_read_with_its_frames() -> None:
    message = _message(media_type="video/mp4", data=b"mp4", name="walk.mp4", frames=[{"image": PNG}])
    message.content[0].video.frames[0].time.FromMilliseconds(1500)
    ((found,),) = (one.parts for one in prompt.messages([message], {}))
    frame = Frame(Media(MediaKind.IMAGE, "image/png", b"png"), timedelta(seconds=1.5))
    assert found == Film(WHOLE, (frame,), "walk.mp4")


@pytest.mark.parametrize(
    ("video", "field"),
    [
        ({}, "video.media_type"),
        ({"media_type": "video/mp4"}, "video.data"),
        ({"media_type": "video/avi", "data": b"x"}, "video.media_type"),
        ({"media_type": "video/mp4", "url": "http://10.0.0.1/x"}, "video.url"),
        ({"media_type": "video/mp4", "data": bytes(12 * 1024 * 1024 + 1)}, "video.data"),
        ({"frames": [{"image": PNG}] * 65}, "video.frames"),
        ({"frames": [{"image": {"media_type": "image/bmp", "data": b"x"}}]}, "video.frames[0].image.media_type"),
    ],
)
def test_a_film_that_is_none_names_its_field(video: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        prompt.messages([_message(**video)], {})
    assert raised.value.field == f"messages[0].content[0].{field}"


def test_an_ability_that_a_dialect_has_no_words_for_stops_the_start() -> None:
    with pytest.raises(CatalogInvalid, match=r"models\.opus\.abilities: anthropic takes no video"):
        checked(
            {"providers": {"c": {"kind": "anthropic"}}, "models": {"opus": {"provider": "c", "abilities": ["video"]}}}
        )


def test_pictures_and_sounds_go_out_in_each_providers_words() -> None:
    picture, sound = Media(MediaKind.IMAGE, "image/png", b"p"), Media(MediaKind.AUDIO, "audio/mpeg", b"s")
    seen, heard = base64.b64encode(b"p").decode(), base64.b64encode(b"s").decode()
    shown = call(Text("?"), picture)
    claude = MessagesDialect().request(shown).body["messages"][0]["content"][1]
    assert claude == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": seen}}
    (item,) = ResponsesDialect().request(shown).body["input"]
    assert item["content"][1] == {"type": "input_image", "image_url": f"data:image/png;base64,{seen}"}
    assert content(shown)[1] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{seen}"}}
    asked = {"type": "input_audio", "input_audio": {"data": heard, "format": "mp3"}}
    assert content(call(Text("?"), sound))[1] == asked


def test_tokens_of_sounds_are_told_apart() -> None:
    usage = b'{"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 40}}}'
    chunk = ChatDialect().reader("p").read(ServerEvent("", usage))
    assert chunk
    assert chunk.usage == Usage(50, 5, audio_input_tokens=40)
