"""Providers and models as configured: the catalogue's, and those the settings alone bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import SecretStr

from services.inference.catalog import (
    Ability,
    Bills,
    Catalog,
    CatalogInvalid,
    EmbeddingEntry,
    Kind,
    Makes,
    ModelEntry,
    ProviderEntry,
    TimeoutEntry,
    checked,
    read_catalog,
)
from services.inference.credentials import CredentialMissing, Credentials, Proof
from services.inference.embeddings.late import MODEL as EMBEDDING_MODEL
from services.inference.embeddings.models import RemoteEmbeddings
from services.inference.embeddings.openai_compatible import EmbeddingEndpoint
from services.inference.media.contract import MediaMaker
from services.inference.media.openai import OpenAIMedia, azure_path
from services.inference.media.replay import MediaRecording, ReplayingMaker
from services.inference.providers.anthropic import MessagesDialect
from services.inference.providers.contract import Provider, Timeouts
from services.inference.providers.foreign import Foreign
from services.inference.providers.http import Dialect, Endpoint, HttpProvider
from services.inference.providers.openai_chat import ChatDialect, azure
from services.inference.providers.openai_responses import ResponsesDialect
from services.inference.providers.synthetic import SyntheticProvider
from services.inference.providers.tgi import GenerateStreamDialect
from services.inference.replay import Cassette, ReplayingProvider, ReplayMode, TextRecording
from services.inference.route import Model, Router
from services.inference.settings import InferenceSettings
from services.inference.turns import Turns

PLUGINS: Final = "agentnet.providers"
"""The entry-point group of providers that others write: `factory(name, options, session) -> Provider`."""

_OPENAI: Final = "https://api.openai.com/v1"
_BASE_URLS: Final = {
    Kind.OPENAI: _OPENAI,
    Kind.OPENAI_RESPONSES: _OPENAI,
    Kind.ANTHROPIC: "https://api.anthropic.com/v1",
    Kind.HUGGINGFACE: "https://router.huggingface.co/v1",
}
_EMBEDDED_CONTEXT: Final = 4096
_OPENAI_ABILITIES: Final = frozenset({Ability.IMAGE, Ability.TOOLS, Ability.JSON_SCHEMA})
_OPENAI_MEDIA: Final = {
    "gpt-image-1": (Makes.IMAGES, Bills.TOKENS),
    "whisper-1": (Makes.TRANSCRIPTION, Bills.SECONDS),
    "gpt-4o-transcribe": (Makes.TRANSCRIPTION, Bills.TOKENS),
    "gpt-4o-mini-transcribe": (Makes.TRANSCRIPTION, Bills.TOKENS),
    "tts-1": (Makes.SPEECH, Bills.CHARACTERS),
    "gpt-4o-mini-tts": (Makes.SPEECH, Bills.TOKENS),
}
_MAKING: Final = timedelta(minutes=5)  # a picture takes minutes until its first byte
_SYNTHETIC_ABILITIES: Final = frozenset(Ability)


async def router(settings: InferenceSettings, session: aiohttp.ClientSession) -> Router:
    """The mesh's models. Raises CatalogInvalid and CredentialMissing, before anything is served."""
    return (await wired(settings, session)).router


@dataclass(frozen=True, slots=True)
class Wired:
    """All models, and who serves those that are not for text."""

    router: Router
    embeddings: Mapping[str, RemoteEmbeddings]
    makers: Mapping[str, MediaMaker]
    folders: Mapping[str, Path]
    """Embedding models of the operator's own, by name."""


async def wired(settings: InferenceSettings, session: aiohttp.ClientSession) -> Wired:
    """The same, and the other models of the catalogue."""
    wiring = _Wiring(settings, session)
    wiring.built_in()
    default = wiring.from_environment()
    if settings.catalog:
        default = await wiring.from_catalog(checked(_completed(settings.catalog, wiring))) or default
    providers = _replayed(wiring.providers, settings)
    models = list(wiring.models.values())
    router = Router(models, providers, default=settings.default_model or default)
    return Wired(router, wiring.embeddings, _replayed_makers(wiring.makers(), settings), wiring.folders)


class _Wiring:
    def __init__(self, settings: InferenceSettings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._credentials = Credentials(session)
        self._turns = Turns()
        self._timeouts = Timeouts(
            settings.connect_timeout, settings.first_token_timeout, settings.idle_timeout, settings.total_timeout
        )
        self._media_timeouts = replace(self._timeouts, first_token=_MAKING)
        self.models: dict[str, Model] = {}
        self.embeddings: dict[str, RemoteEmbeddings] = {}
        self.folders: dict[str, Path] = {}
        self.providers: dict[str, Provider] = {}
        self._media_paths: dict[str, dict[str, str]] = {}

    def built_in(self) -> None:
        gap = self._settings.synthetic_gap
        self.providers |= {"synthetic": SyntheticProvider(gap=gap * 0), "synthetic-paced": SyntheticProvider(gap=gap)}
        for name in ("synthetic", "synthetic-paced"):
            self._add(Model(name, name, abilities=_SYNTHETIC_ABILITIES, timeouts=self._timeouts))
        self._add(Model(EMBEDDING_MODEL, "embedded", embedding=True))

    def from_environment(self) -> str:
        """The embedded model and OpenAI, as their settings say; the default model."""
        settings, default = self._settings, "synthetic"
        if settings.embedded_url:
            self.providers["embedded"] = self._http(
                "embedded", settings.embedded_url, ChatDialect(), bearer(settings.embedded_key)
            )
            default = settings.embedded_model
            self._add(
                Model(
                    default, "embedded", context_tokens=_EMBEDDED_CONTEXT, timeouts=self._timeouts,
                    abilities=frozenset({Ability.JSON_SCHEMA}),
                )
            )  # fmt: skip
        if settings.openai_api_key.get_secret_value() or settings.openai_base_url:
            dialect = ChatDialect() if settings.openai_base_url else ChatDialect(limit_field="max_completion_tokens")
            url = settings.openai_base_url or _OPENAI
            self.providers["openai"] = self._http("openai", url, dialect, bearer(settings.openai_api_key))
            names = [name.strip() for name in settings.openai_models.split(",") if name.strip()]
            for name in names:
                self._add(Model(name, "openai", abilities=_OPENAI_ABILITIES, timeouts=self._timeouts))
            default = names[0] if names else default
            if not settings.openai_base_url:
                for name, (makes, bills) in _OPENAI_MEDIA.items():
                    self._add(Model(name, "openai", makes=makes, bills=bills, timeouts=self._media_timeouts))
        return default

    async def from_catalog(self, catalog: Catalog) -> str:
        """What the file says; it wins over the settings. The default model, or nothing."""
        for name, provider in catalog.providers.items():
            if name not in self.providers or provider.kind is not Kind.SYNTHETIC:
                self.providers[name] = await self._provider(name, provider)
        for name, model in catalog.models.items():
            if name not in self.models:
                self._add(self._model(name, model))
        for name, embedding in catalog.embeddings.items():
            if embedding.folder:
                self.folders[name] = embedding.folder
                self._add(Model(name, "embedded", embedding=True))
                continue
            self.embeddings[name] = await self._embedding(name, embedding, catalog.providers[embedding.provider])
            self._add(Model(name, embedding.provider, remote=embedding.model, embedding=True))
        for name, media in catalog.media.items():
            self._add(
                Model(
                    name, media.provider, media.model, makes=media.makes, bills=media.bills, fallback=media.fallback,
                    timeouts=_chosen(self._media_timeouts, media.timeouts),
                )
            )  # fmt: skip
        return catalog.default

    def makers(self) -> Mapping[str, MediaMaker]:
        """The providers that make pictures and sounds too, over the connections they have."""
        names = {model.provider for model in self.models.values() if model.makes}
        serving = {name: provider for name in names if isinstance(provider := self.providers[name], HttpProvider)}
        return {name: OpenAIMedia(provider, **self._media_paths.get(name, {})) for name, provider in serving.items()}

    async def _embedding(self, name: str, entry: EmbeddingEntry, provider: ProviderEntry) -> RemoteEmbeddings:
        url = provider.base_url or _BASE_URLS[provider.kind]
        proof = await self._proof(entry.provider, provider)
        endpoint = EmbeddingEndpoint(entry.provider, url, proof, entry.model or name, entry.timeout, entry.width)
        return RemoteEmbeddings(endpoint, entry.window)

    async def _provider(self, name: str, entry: ProviderEntry) -> Provider:
        if entry.kind is Kind.SYNTHETIC:
            return SyntheticProvider(gap=timedelta())
        if entry.kind is Kind.PLUGIN:
            return _plugin(name, entry, await self._key(name, entry), self._session)
        if entry.kind is Kind.AZURE:
            self._media_paths[name] = {"path": azure_path(entry.api_version)}
        url, proof = entry.base_url or _BASE_URLS[entry.kind], await self._proof(name, entry)
        return HttpProvider(Endpoint(name, url, proof=proof), dialect(entry), self._session, turns=self._turns)

    async def _proof(self, name: str, entry: ProviderEntry) -> Proof | None:
        key = await self._key(name, entry)
        if not key.get_secret_value():
            return None
        return Proof(lambda: self._key(name, entry), key, lambda found: _shown(entry.kind, found))

    async def _key(self, name: str, entry: ProviderEntry) -> SecretStr:
        if not entry.api_key or self._settings.replay is ReplayMode.STRICT:  # then nobody is called
            return SecretStr("")
        try:
            return await self._credentials.read(entry.api_key)
        except CredentialMissing as error:
            raise CredentialMissing(f"providers.{name}.api_key: {error}") from None

    def _http(self, name: str, url: str, dialect: Dialect, headers: Mapping[str, str]) -> HttpProvider:
        return HttpProvider(Endpoint(name, url, headers), dialect, self._session, turns=self._turns)

    def _model(self, name: str, entry: ModelEntry) -> Model:
        return Model(
            name=name,
            provider=entry.provider,
            remote=entry.model,
            context_tokens=entry.context_tokens,
            abilities=entry.abilities,
            fallback=entry.fallback,
            timeouts=_chosen(self._timeouts, entry.timeouts),
            continues=entry.continues,
            cheaper=entry.cheaper,
            tokenizer=entry.tokenizer,
        )

    def _add(self, model: Model) -> None:
        self.models[model.name] = model


def _chosen(held: Timeouts, entry: TimeoutEntry) -> Timeouts:
    return replace(held, **{field: value for field, value in entry if value is not None})


def bearer(key: SecretStr) -> dict[str, str]:
    """The header that proves a key, or none."""
    return {"authorization": f"Bearer {key.get_secret_value()}"} if key.get_secret_value() else {}


def _completed(path: Path, wiring: _Wiring) -> dict[str, Any]:
    """The file's data, with the models and providers it may name without describing them."""
    data = read_catalog(path)
    known = {
        name: {"provider": model.provider, "context_tokens": model.context_tokens}
        for name, model in wiring.models.items()
        if not model.embedding
    }
    built_in = {name: {"kind": Kind.SYNTHETIC.value} for name in wiring.providers}
    for part, added in (("models", known), ("providers", built_in)):
        if not isinstance(data.get(part, {}), dict):
            raise CatalogInvalid(f"{part}: must be a mapping of names")
        data[part] = added | data.get(part, {})
    return data


def dialect(entry: ProviderEntry) -> Dialect:
    """What a provider of the catalogue speaks."""
    match entry.kind:
        case Kind.OPENAI:
            return ChatDialect(limit_field="max_completion_tokens")
        case Kind.OPENAI_RESPONSES:
            return ResponsesDialect()
        case Kind.AZURE:
            return azure(entry.api_version)
        case Kind.ANTHROPIC:
            return MessagesDialect()
        case Kind.HUGGINGFACE_TGI:
            return GenerateStreamDialect()
        case _:
            return ChatDialect()


def _shown(kind: Kind, key: SecretStr) -> Mapping[str, str]:
    if kind is Kind.AZURE:
        return {"api-key": key.get_secret_value()}
    if kind is Kind.ANTHROPIC:
        return {"x-api-key": key.get_secret_value()}
    return bearer(key)


def _plugin(name: str, entry: ProviderEntry, key: SecretStr, session: aiohttp.ClientSession) -> Provider:
    found = entry_points(group=PLUGINS, name=entry.plugin)
    if not found:
        raise CatalogInvalid(f"providers.{name}.plugin: no installed package has {entry.plugin} in {PLUGINS}")
    (point, *_) = found
    where = f"providers.{name}.plugin: {entry.plugin}"
    try:
        provider: Provider = point.load()(name, {**entry.options, "api_key": key}, session)
    except (ImportError, AttributeError, TypeError, LookupError, ValueError) as error:  # it is somebody else's code
        raise CatalogInvalid(f"{where} cannot be made: {type(error).__name__}: {error}") from error
    if getattr(provider, "name", "") != name or not callable(getattr(provider, "stream", None)):
        raise CatalogInvalid(f"{where} must make what has the name {name}, as it was given, and streams calls")
    return Foreign(provider)


def _replayed(providers: dict[str, Provider], settings: InferenceSettings) -> dict[str, Provider]:
    if settings.replay is ReplayMode.OFF or settings.replay_folder is None:
        return providers
    cassette = Cassette(settings.replay_folder, TextRecording)
    cassette.load()
    return {name: ReplayingProvider(provider, cassette, settings.replay) for name, provider in providers.items()}


def _replayed_makers(makers: Mapping[str, MediaMaker], settings: InferenceSettings) -> Mapping[str, MediaMaker]:
    if not makers or settings.replay is ReplayMode.OFF or settings.replay_folder is None:
        return makers
    cassette = Cassette(settings.replay_folder / "media", MediaRecording)
    cassette.load()
    return {name: ReplayingMaker(maker, cassette, settings.replay) for name, maker in makers.items()}
