"""From a catalogue file to providers that answer: every kind goes to its server, with its path and its proof."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from services.inference import wiring
from services.inference.catalog import CatalogInvalid, Makes
from services.inference.credentials import CredentialMissing
from services.inference.embeddings.models import RemoteEmbeddings
from services.inference.embeddings.openai_compatible import EmbeddingEndpoint
from services.inference.errors import ProviderUnavailable, ReplayMissed, StreamBroken
from services.inference.media.contract import TranscriptionOrder
from services.inference.providers.contract import Chunk, FinishReason, ModelCall, Role, Sampling, infer, said
from services.inference.replay import RecordingInvalid
from services.inference.route import Router
from services.inference.settings import InferenceSettings
from shared.errors import MeshError
from tests.support.openai_server import Answer, openai_server
from tests.support.wire import WIRES

PROMPT = (said(Role.USER, "Hello?"),)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def routed(session: aiohttp.ClientSession, folder: Path, catalog: Mapping[str, Any], **changes: Any) -> Router:
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(dict(catalog)))
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": "none", "catalog": path}
    settings = InferenceSettings.model_validate(given | {"openai_api_key": "", "embedded_url": ""} | changes)
    return await wiring.router(settings, session)


async def answer(router: Router, model: str) -> str:
    call = ModelCall(model, PROMPT, Sampling(), 32)
    target = router.chain(router.resolve(model), call, fallback=None)[0]
    return (await infer(target.provider, target.call(call))).text


KINDS = {
    "openai": ("openai", "authorization", "Bearer k-1"),
    "openai_responses": ("responses", "authorization", "Bearer k-1"),
    "openai_compatible": ("compatible", "authorization", "Bearer k-1"),
    "azure": ("azure", "api-key", "k-1"),
    "anthropic": ("anthropic", "x-api-key", "k-1"),
    "huggingface": ("compatible", "authorization", "Bearer k-1"),
    "huggingface_tgi": ("tgi", "authorization", "Bearer k-1"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_speaks_its_dialect_with_its_proof(
    session: aiohttp.ClientSession, tmp_path: Path, kind: str
) -> None:
    name, header, proof = KINDS[kind]
    wire = WIRES[name]
    key = tmp_path / "key"
    key.write_text("k-1")
    async with openai_server(wire.path) as server:
        provider = {"kind": kind, "base_url": server.root, "api_key": f"file:{key}"}
        provider |= {"api_version": "2024-10-21"} if kind == "azure" else {}
        catalog = {"providers": {"mine": provider}, "models": {"big": {"provider": "mine", "model": "m"}}}
        server.answers = [Answer(wire.text(["Hello", "!"]))]
        assert await answer(await routed(session, tmp_path, catalog), "big") == "Hello!"
        assert server.headers[0][header] == proof
        assert server.heard[0].get("model", "m") == "m"


async def test_regions_of_azure_have_their_own_place_deployment_and_key(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, path = WIRES["azure"], "/openai/deployments/{deployment}/chat/completions"
    async with openai_server(path) as europe, openai_server(path) as america:
        places = {"eu": europe, "us": america}
        for region in places:
            monkeypatch.setenv(f"AZURE_{region.upper()}", f"k-{region}")
        azure = {"kind": "azure", "api_version": "2024-10-21"}
        catalog = {
            "providers": {
                f"azure-{region}": {**azure, "base_url": server.root, "api_key": f"env:AZURE_{region.upper()}"}
                for region, server in places.items()
            },
            "models": {
                "gpt-4o": {"provider": "azure-eu", "model": "big-eu", "fallback": ["gpt-4o-us"]},
                "gpt-4o-us": {"provider": "azure-us", "model": "big-us"},
            },
        }
        router = await routed(session, tmp_path, catalog)
        call = ModelCall("gpt-4o", PROMPT, Sampling(), 32)
        for target in router.chain(router.resolve("gpt-4o"), call, fallback=None):
            places[target.provider.name.removeprefix("azure-")].answers = [Answer(wire.text(["Hello"]))]
            assert (await infer(target.provider, target.call(call))).text == "Hello"
        for region, server in places.items():
            assert server.paths == [f"/openai/deployments/big-{region}/chat/completions"]
            assert [headers["api-key"] for headers in server.headers] == [f"k-{region}"]


async def test_the_catalogue_may_fall_back_on_what_is_built_in(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    catalog = {
        "providers": {"mine": {"kind": "openai_compatible", "base_url": "http://127.0.0.1:1"}},
        "models": {"big": {"provider": "mine", "fallback": ["synthetic"], "timeouts": {"idle": "7s"}}},
        "default": "big",
    }
    router = await routed(session, tmp_path, catalog)
    call = ModelCall("big", PROMPT, Sampling(), 32)
    chain = router.chain(router.resolve(""), call, fallback=None)
    assert [target.model.name for target in chain] == ["big", "synthetic"]
    assert chain[0].call(call).timeouts.idle.total_seconds() == 7
    assert chain[0].call(call).timeouts.connect.total_seconds() == 5


async def test_a_key_that_is_not_there_stops_the_start_and_says_where(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    catalog = {"providers": {"mine": {"kind": "anthropic", "api_key": "env:NO_SUCH_KEY"}}}
    with pytest.raises(CredentialMissing, match=r"providers\.mine\.api_key: the environment has no NO_SUCH_KEY"):
        await routed(session, tmp_path, catalog)


async def test_a_wrong_catalogue_stops_the_start(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    with pytest.raises(CatalogInvalid, match="providers: must be a mapping"):
        await routed(session, tmp_path, {"providers": ["openai"]})


@dataclass(frozen=True, slots=True)
class House:
    """A provider of somebody's own."""

    name: str
    options: Mapping[str, Any]

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        yield Chunk(f"{self.options['greeting']} from {call.model}", 1)
        yield Chunk(finish_reason=FinishReason.STOP)


class Broken:
    """What is no provider."""


@dataclass(frozen=True, slots=True)
class Faulty:
    """A provider with a fault: before it says anything, or after."""

    name: str

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        if call.max_output_tokens > 1:
            yield Chunk("Half", 1)
        raise LookupError("my secret")


def faulty(name: str, _options: Mapping[str, Any], _session: aiohttp.ClientSession) -> Faulty:
    return Faulty(name)


def nameless(_name: str, _options: Mapping[str, Any], _session: aiohttp.ClientSession) -> House:
    return House("house", {})


def demanding(_name: str, options: Mapping[str, Any], _session: aiohttp.ClientSession) -> House:
    return House(options["region"], options)


def house(name: str, options: Mapping[str, Any], _session: aiohttp.ClientSession) -> House:
    return House(name, options)


async def test_a_plug_in_is_found_by_its_entry_point(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("house", f"{__name__}:house", wiring.PLUGINS)
    monkeypatch.setattr(wiring, "entry_points", lambda **chosen: EntryPoints([point]).select(**chosen))
    provider = {"kind": "plugin", "plugin": "house", "options": {"greeting": "Hi"}}
    catalog = {"providers": {"mine": provider}, "models": {"big": {"provider": "mine"}}}
    assert await answer(await routed(session, tmp_path, catalog), "big") == "Hi from big"
    catalog["providers"]["mine"] = {"kind": "plugin", "plugin": "garage"}
    with pytest.raises(CatalogInvalid, match="no installed package has garage"):
        await routed(session, tmp_path, catalog)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("no_such_package:provider", "cannot be made: ModuleNotFoundError"),
        (f"{__name__}:nothing", "cannot be made: AttributeError"),
        (f"{__name__}:demanding", "cannot be made: KeyError: 'region'"),
        (f"{__name__}:Broken", "cannot be made: TypeError"),
        (f"{__name__}:nameless", "must make what has the name mine"),
    ],
)
async def test_a_plug_in_that_is_none_stops_the_start_and_says_where(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, why: str
) -> None:
    point = EntryPoint("house", names, wiring.PLUGINS)
    monkeypatch.setattr(wiring, "entry_points", lambda **chosen: EntryPoints([point]).select(**chosen))
    catalog = {"providers": {"mine": {"kind": "plugin", "plugin": "house"}}, "models": {"big": {"provider": "mine"}}}
    with pytest.raises(CatalogInvalid, match=rf"providers\.mine\.plugin: house {why}"):
        await routed(session, tmp_path, catalog)


@pytest.mark.parametrize(("tokens", "kind"), [(1, ProviderUnavailable), (2, StreamBroken)])
async def test_a_fault_of_a_plug_in_is_a_failure_of_its_provider(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int, kind: type[MeshError]
) -> None:
    point = EntryPoint("house", f"{__name__}:faulty", wiring.PLUGINS)
    monkeypatch.setattr(wiring, "entry_points", lambda **chosen: EntryPoints([point]).select(**chosen))
    catalog = {"providers": {"mine": {"kind": "plugin", "plugin": "house"}}, "models": {"big": {"provider": "mine"}}}
    router = await routed(session, tmp_path, catalog)
    call = ModelCall("big", PROMPT, Sampling(), tokens)
    with pytest.raises(kind, match="the plug-in failed: LookupError") as raised:
        await infer(router.chain(router.resolve("big"), call, fallback=None)[0].provider, call)
    assert "secret" not in str(raised.value.status())


async def test_a_plug_in_speaks_its_own_wire_over_the_connections_of_the_mesh(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("house", "tests.support.house:provider", wiring.PLUGINS)
    monkeypatch.setattr(wiring, "entry_points", lambda **chosen: EntryPoints([point]).select(**chosen))
    monkeypatch.setenv("HOUSE_KEY", "k-house")
    wire = WIRES["plugin"]
    async with openai_server(wire.path) as server:
        server.answers = [Answer(wire.text(["Hello", "!"]))]
        provider = {
            "kind": "plugin", "plugin": "house", "api_key": "env:HOUSE_KEY", "options": {"base_url": server.root},
        }  # fmt: skip
        catalog = {"providers": {"mine": provider}, "models": {"big": {"provider": "mine"}}}
        assert await answer(await routed(session, tmp_path, catalog), "big") == "Hello!"
        assert server.keys == ["Bearer k-house"]


async def test_replay_needs_neither_provider_nor_key(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cassette = tmp_path / "cassette"
    wire = WIRES["compatible"]
    monkeypatch.setenv("HOUSE_KEY", "k-1")
    async with openai_server(wire.path) as server:
        catalog = {
            "providers": {
                "mine": {"kind": "openai_compatible", "base_url": server.root, "api_key": "env:HOUSE_KEY"},
            },
            "models": {"big": {"provider": "mine"}},
        }
        server.answers = [Answer(wire.text(["Hello", "!"]))]
        recording = await routed(session, tmp_path, catalog, replay="record", replay_folder=cassette)
        assert await answer(recording, "big") == "Hello!"
    monkeypatch.delenv("HOUSE_KEY")
    replaying = await routed(session, tmp_path, catalog, replay="strict", replay_folder=cassette)
    assert await answer(replaying, "big") == "Hello!"
    (file,) = cassette.iterdir()
    file.write_text(json.dumps({"version": 1}))
    with pytest.raises(RecordingInvalid):
        await routed(session, tmp_path, catalog, replay="strict", replay_folder=cassette)


def test_replay_without_a_folder_is_refused_by_the_settings() -> None:
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "x", "identity_keys": "none", "replay": "strict"}
    with pytest.raises(ValueError, match="replay needs replay_folder"):
        InferenceSettings.model_validate(given)


EMBEDDINGS = {
    "providers": {"house": {"kind": "openai_compatible", "base_url": "http://127.0.0.1:1/v1", "api_key": "env:HOUSE_KEY"}},
    "embeddings": {"small": {"provider": "house", "model": "e-3-small", "width": 512, "window": 8191, "timeout": "7s"}},
}  # fmt: skip


async def test_embedding_models_of_the_catalogue_are_listed_and_reached(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSE_KEY", "k-9")
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump(EMBEDDINGS))
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": "none", "catalog": path}
    wired = await wiring.wired(InferenceSettings.model_validate(given | {"openai_api_key": ""}), session)
    proof = wired.embeddings["small"].endpoint.proof
    assert proof
    assert proof.headers == {"authorization": "Bearer k-9"}
    endpoint = EmbeddingEndpoint("house", "http://127.0.0.1:1/v1", proof, "e-3-small", timedelta(seconds=7), 512)
    assert wired.embeddings == {"small": RemoteEmbeddings(endpoint, 8191)}
    assert [
        (model.name, model.provider) for model in wired.router.models() if model.embedding and model.name == "small"
    ] == [("small", "house")]


async def test_an_embedding_model_in_a_folder_needs_no_provider(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({"embeddings": {"own": {"folder": str(tmp_path)}}}))
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": "none", "catalog": path}
    wired = await wiring.wired(InferenceSettings.model_validate(given), session)
    assert (wired.folders, wired.embeddings) == ({"own": tmp_path}, {})
    assert ("own", True) in [(model.name, model.embedding) for model in wired.router.models()]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"folder": "/own", "provider": "house"}, "folder stands alone: .+ is in /own/embedding.json"),
        ({"folder": "/own", "width": 3}, "folder stands alone"),
        ({}, "a provider or a folder is required"),
    ],
)
async def test_an_embedding_model_is_in_one_place(
    session: aiohttp.ClientSession, tmp_path: Path, entry: dict[str, Any], fault: str
) -> None:
    with pytest.raises(CatalogInvalid, match=rf"embeddings\.own.+{fault}"):
        await routed(session, tmp_path, {"embeddings": {"own": entry}})


@pytest.mark.parametrize("changes", [{"provider": "claude"}, {"provider": "nobody"}, {"width": -1}])
async def test_an_embedding_model_that_cannot_be_stops_the_start(
    session: aiohttp.ClientSession, tmp_path: Path, changes: dict[str, Any]
) -> None:
    wrong = {
        "providers": {"claude": {"kind": "anthropic"}},
        "embeddings": {"small": EMBEDDINGS["embeddings"]["small"] | changes},
    }
    with pytest.raises(CatalogInvalid, match=r"embeddings\.small"):
        await routed(session, tmp_path, wrong)


async def test_replay_stands_before_who_makes_pictures_and_sounds_too(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path = tmp_path / "catalog.yaml"
    catalog = {
        "providers": {"mine": {"kind": "openai_compatible", "base_url": "http://127.0.0.1:1/v1"}},
        "media": {"hears": {"provider": "mine", "makes": "transcription", "bills": "seconds"}},
    }
    path.write_text(yaml.safe_dump(catalog))
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "x", "identity_keys": "none", "catalog": path}
    given |= {"openai_api_key": "", "embedded_url": "", "replay": "strict", "replay_folder": tmp_path / "tapes"}
    wired = await wiring.wired(InferenceSettings.model_validate(given), session)
    model = wired.router.making(Makes.TRANSCRIPTION, "")[0].model
    heard = wired.makers["mine"].transcript(model, TranscriptionOrder(b"x", "audio/wav"))
    with pytest.raises(ReplayMissed):
        await anext(heard)
