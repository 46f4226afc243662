"""OpenAI's official Python client, unchanged, against the edge: pictures and sounds."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from tests.support.edge import Edge
from tests.support.scripted_inference import PICTURE, SOUND, TEXT, ScriptedInference

# The client imports its parts at first use, for seconds in which this loop would serve nobody: here is better.
with openai.OpenAI(api_key="none") as _early:
    _PARTS = (_early.images, _early.audio.transcriptions, _early.audio.speech)

pytestmark = pytest.mark.asyncio(loop_scope="module")
FILE = ("meeting.mp3", b"\xff\xfb\x90\r\n--not a boundary\r\n\x00", "application/octet-stream")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(edge: Edge) -> AsyncIterator[openai.AsyncOpenAI]:
    made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "media", "roles": ["tenant_user"]})
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=made["secret"], max_retries=0) as connected:
        yield connected


async def test_pictures_come_in_base64(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    found = await client.images.generate(model="gpt-image-1", prompt="A cat", n=2, size="1024x1024", quality="high")
    assert found.data
    assert [base64.b64decode(one.b64_json or "") for one in found.data] == [PICTURE] * 2
    assert found.data[0].revised_prompt == "A better cat."
    assert found.usage
    assert (found.created, found.usage.output_tokens, found.usage.total_tokens) == (1_800_000_000, 272, 277)
    asked = inference.media[-1]
    assert (asked.model, asked.prompt, asked.count, asked.size, asked.quality) == (
        "gpt-image-1", "A cat", 2, "1024x1024", "high",
    )  # fmt: skip


async def test_a_sound_goes_up_as_a_form_and_comes_back_as_words(
    client: openai.AsyncOpenAI, inference: ScriptedInference
) -> None:
    found = await client.audio.transcriptions.create(
        model="whisper-1", file=FILE, language="en", prompt="Bob", temperature=0.5
    )
    assert found.text == TEXT
    asked = inference.media[-1]
    assert (asked.model, asked.audio, asked.media_type) == ("whisper-1", FILE[1], "audio/mpeg")
    assert (asked.language, asked.prompt, asked.temperature, asked.segments) == ("en", "Bob", 0.5, False)


async def test_a_transcript_has_the_forms_that_clients_know(client: openai.AsyncOpenAI) -> None:
    create = client.audio.transcriptions.create
    whole = await create(
        model="whisper-1", file=FILE, response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert (whole.text, whole.language, whole.duration) == (TEXT, "english", 2.5)
    assert [(one.start, one.end, one.text) for one in whole.segments or ()] == [
        (0, 1.25, "Hello, "), (1.25, 2.5, "wörld!"),
    ]  # fmt: skip
    assert await create(model="whisper-1", file=FILE, response_format="text") == f"{TEXT}\n"
    assert await create(model="whisper-1", file=FILE, response_format="srt") == (
        "1\n00:00:00,000 --> 00:00:01,250\nHello,\n\n2\n00:00:01,250 --> 00:00:02,500\nwörld!\n"
    )
    assert await create(model="redacted", file=FILE, response_format="vtt") == (
        f"WEBVTT\n\n00:00:00.000 --> 00:00:02.500\n{TEXT}\n"
    )


async def test_a_text_is_spoken_as_it_is_made(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    async with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="Hello.", speed=1.25, instructions="kindly", response_format="mp3"
    ) as spoken:
        assert spoken.headers["content-type"] == "audio/mpeg"
        assert b"".join([piece async for piece in spoken.iter_bytes()]) == SOUND
    asked = inference.media[-1]
    assert (asked.text, asked.voice, asked.speed, asked.instructions, asked.format) == (
        "Hello.", "alloy", 1.25, "kindly", "mp3",
    )  # fmt: skip


async def test_what_the_mesh_cannot_do_is_refused_by_name(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as by_url:
        await client.images.generate(model="dall-e-3", prompt="A cat", response_format="url")
    with pytest.raises(openai.BadRequestError) as words:
        await client.audio.transcriptions.create(
            model="whisper-1", file=FILE, response_format="verbose_json", timestamp_granularities=["word"]
        )
    with pytest.raises(openai.BadRequestError) as many:
        await client.images.generate(model="dall-e-3", prompt="A cat", n=11)
    assert [one.value.param for one in (by_url, words, many)] == [
        "response_format", "timestamp_granularities[]", "n",
    ]  # fmt: skip
    with pytest.raises(openai.RateLimitError) as poor:
        await client.images.generate(model="poor", prompt="A cat")
    assert poor.value.code == "insufficient_quota"


async def test_a_form_that_is_none_is_a_bad_request(edge: Edge) -> None:
    answer = await edge.bearer("POST", "/v1/audio/transcriptions", edge.token(), {"model": "whisper-1"})
    assert (answer.status, answer.body["error"]["type"]) == (400, "invalid_request_error")


async def test_sounds_films_and_documents_are_parts_of_a_chat(
    client: openai.AsyncOpenAI, inference: ScriptedInference
) -> None:
    data = base64.b64encode(b"bytes").decode()
    parts = [
        {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.webm"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}},
    ]
    await client.chat.completions.create(model="words", messages=[{"role": "user", "content": parts}])  # type: ignore[list-item]
    sound, film, linked, document = inference.asked[-1].messages[0].content
    assert (sound.audio.media_type, sound.audio.data) == ("audio/mpeg", b"bytes")
    assert (film.video.media_type, film.video.data) == ("video/mp4", b"bytes")
    assert (linked.video.media_type, linked.video.url) == ("video/webm", "https://example.org/a.webm")
    assert (document.document.name, document.document.media_type) == ("a.pdf", "application/pdf")


async def test_a_document_is_a_part_of_a_response(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    data = f"data:application/pdf;base64,{base64.b64encode(b'bytes').decode()}"
    file = {"type": "input_file", "filename": "a.pdf", "file_data": data}
    await client.responses.create(model="words", input=[{"role": "user", "content": [file]}])
    (part,) = inference.asked[-1].messages[0].content
    assert (part.document.name, part.document.media_type, part.document.data) == ("a.pdf", "application/pdf", b"bytes")
    for wrong in ({"file_id": "file-1"}, {"file_url": "https://example.org/a.pdf"}):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            await client.responses.create(model="words", input=[{"role": "user", "content": [{**file, **wrong}]}])
