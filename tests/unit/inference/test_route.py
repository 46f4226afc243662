"""Models are found by name, by data."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from services.inference.errors import ModelNotFound
from services.inference.providers.contract import ModelCall, Role, Sampling, said
from services.inference.route import Router
from services.inference.settings import InferenceSettings
from services.inference.wiring import router as wired


async def router(**changes: str) -> Router:
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": Path("none")}
    settings = InferenceSettings.model_validate(given | {"openai_api_key": "", "embedded_url": ""} | changes)
    async with aiohttp.ClientSession() as session:
        return await wired(settings, session)


async def test_without_a_key_the_embedded_model_is_the_default() -> None:
    model = (await router(embedded_url="http://127.0.0.1:1/v1")).resolve("")
    assert (model.name, model.provider) == ("smollm2-135m", "embedded")


async def test_with_a_key_that_provider_s_first_model_is_the_default() -> None:
    found = await router(embedded_url="http://127.0.0.1:1/v1", openai_api_key="sk-1", openai_models="big, small")
    assert (found.resolve("").name, found.resolve("").provider) == ("big", "openai")
    assert found.resolve("small").provider == "openai"


async def test_a_url_without_a_key_is_enough() -> None:
    assert (await router(openai_base_url="http://127.0.0.1:1/v1")).resolve("gpt-4o").provider == "openai"


async def test_a_default_that_is_set_wins() -> None:
    assert (await router(openai_api_key="sk-1", default_model="synthetic")).resolve("").name == "synthetic"


async def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelNotFound, match="synthetic, synthetic-paced") as raised:
        (await router()).resolve("gpt-9")
    assert raised.value.facts == {"model": "gpt-9", "known": "synthetic, synthetic-paced"}


async def test_an_embedding_model_does_not_generate() -> None:
    with pytest.raises(ModelNotFound):
        (await router()).resolve("minilm-l6-v2")


async def test_synthetic_paced_has_the_gap_and_synthetic_has_none() -> None:
    found = await router()
    call = ModelCall("any", (said(Role.USER, "Hello?"),), Sampling(), 1)
    targets = [found.chain(found.resolve(name), call, fallback=None)[0] for name in ("synthetic", "synthetic-paced")]
    assert [target.provider._gap for target in targets] == [0, 0.02]  # type: ignore[attr-defined]
