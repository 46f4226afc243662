"""The catalogue of providers and models: a YAML file, checked whole before anything is served.

providers:
openai:    {kind: openai, api_key: env:OPENAI_API_KEY}
azure-eu:  {kind: azure, base_url: https://eu.openai.azure.com, api_version: 2024-10-21, api_key: vault:kv/azure#key}
models:
gpt-4o:      {provider: openai, context_tokens: 128000, abilities: [image, tools, json_schema],
fallback: [gpt-4o-mini, smollm2-135m, synthetic]}
gpt-4o-eu:   {provider: azure-eu, model: my-deployment, timeouts: {first_token: 20s}}
default: gpt-4o
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from shared.settings import BadSetting

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


class CatalogInvalid(BadSetting):
    """The catalogue cannot be used. Says where and why, one line a fault."""

    setting = "AGENTNET_INFERENCE_CATALOG"


class Kind(StrEnum):
    """Which dialect a provider speaks."""

    OPENAI = "openai"
    OPENAI_RESPONSES = "openai_responses"
    OPENAI_COMPATIBLE = "openai_compatible"
    AZURE = "azure"
    ANTHROPIC = "anthropic"
    HUGGINGFACE = "huggingface"
    HUGGINGFACE_TGI = "huggingface_tgi"
    PLUGIN = "plugin"
    SYNTHETIC = "synthetic"


EMBEDDING_KINDS: Final = (Kind.OPENAI, Kind.OPENAI_RESPONSES, Kind.OPENAI_COMPATIBLE)
MEDIA_KINDS: Final = (*EMBEDDING_KINDS, Kind.AZURE)


class Makes(StrEnum):
    """What a model that is not for text makes."""

    IMAGES = "images"
    TRANSCRIPTION = "transcription"
    SPEECH = "speech"


class Bills(StrEnum):
    """What a provider counts of it."""

    IMAGES = "images"
    TOKENS = "tokens"
    SECONDS = "seconds"
    CHARACTERS = "characters"


_BILLED: Final = {
    Makes.IMAGES: (Bills.IMAGES, Bills.TOKENS),
    Makes.TRANSCRIPTION: (Bills.SECONDS, Bills.TOKENS),
    Makes.SPEECH: (Bills.CHARACTERS, Bills.TOKENS),
}


class Ability(StrEnum):
    """What a model takes beside text."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    REASONING = "reasoning"


_UNSPOKEN: Final = {
    Kind.OPENAI_RESPONSES: frozenset({Ability.VIDEO}),
    Kind.ANTHROPIC: frozenset({Ability.AUDIO, Ability.VIDEO}),
    Kind.HUGGINGFACE_TGI: frozenset({Ability.IMAGE, Ability.AUDIO, Ability.VIDEO}),
}
"""What a dialect has no words for, whatever the model can do."""


def _span(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    found = _SPAN.fullmatch(str(value))
    if not found:
        raise ValueError("must be a time like 500ms, 20s or 5m")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def _dated(value: Any) -> Any:
    """YAML takes 2024-10-21 for a date."""
    return value.isoformat() if isinstance(value, date) else value


Dated = Annotated[str, BeforeValidator(_dated)]
Span = Annotated[timedelta, BeforeValidator(_span), Field(gt=timedelta(), le=timedelta(hours=1))]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeoutEntry(_Strict):
    """How long a model's calls may take; what is absent is the mesh's."""

    connect: Span | None = None
    first_token: Span | None = None
    idle: Span | None = None
    total: Span | None = None


class ProviderEntry(_Strict):
    """One provider."""

    kind: Kind
    base_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    api_key: str = Field(
        default="", pattern=r"^((env|file|sealed|vault|aws):.+)?$", description="a reference, never the key"
    )
    api_version: Dated = Field(default="", pattern=r"^[0-9a-z-]*$")
    plugin: str = Field(default="", description="the entry point's name in the group agentnet.providers")
    options: dict[str, Any] = Field(default_factory=dict, description="for a plug-in, as it likes")

    @model_validator(mode="after")
    def _complete(self) -> ProviderEntry:
        needs_url = (Kind.OPENAI_COMPATIBLE, Kind.AZURE, Kind.HUGGINGFACE_TGI)
        if self.kind in needs_url and not self.base_url:
            raise ValueError(f"base_url is required for {self.kind.value}")
        if self.kind is Kind.AZURE and not self.api_version:
            raise ValueError("api_version is required for azure")
        if (self.kind is Kind.PLUGIN) != bool(self.plugin):
            raise ValueError("plugin names the entry point, for the kind plugin and no other")
        return self


class ModelEntry(_Strict):
    """One model, under the mesh's name for it."""

    provider: Name
    model: str = Field(default="", description="the provider's name or deployment; empty: the same")
    context_tokens: int = Field(default=0, ge=0)
    abilities: frozenset[Ability] = frozenset()
    fallback: tuple[Name, ...] = Field(default=(), max_length=8)
    timeouts: TimeoutEntry = TimeoutEntry()
    continues: bool = Field(default=False, description="goes on from a begun answer; else a failover restarts")
    cheaper: str = Field(default="", description="the model that calls go to when cost asks for a cheaper one")
    tokenizer: str = Field(default="", description="which tokenizer counts for it; empty: found by its name")


class EmbeddingEntry(_Strict):
    """One embedding model: behind OpenAI's wire format, or in a folder, whose own settings say the rest."""

    provider: str = ""
    folder: Path | None = Field(default=None, description="in place of a provider; alone")
    model: str = Field(default="", description="the provider's name; empty: the same")
    width: int = Field(default=0, ge=0, le=8192, description="asked for as `dimensions`; 0: the model's own")
    window: int = Field(
        default=0, ge=0, description="tokens a text is cut to; 0: long texts are refused by the provider"
    )
    timeout: Span = timedelta(seconds=30)

    @model_validator(mode="after")
    def _somewhere(self) -> EmbeddingEntry:
        if self.folder is not None and self.model_fields_set != {"folder"}:
            raise ValueError(f"folder stands alone: what else there is to say is in {self.folder}/embedding.json")
        if self.folder is None and not self.provider:
            raise ValueError("a provider or a folder is required")
        return self


class MediaEntry(_Strict):
    """One model that makes pictures, speech or transcripts, behind OpenAI's wire format."""

    provider: Name
    makes: Makes
    bills: Bills = Field(description="what its provider counts, and so what its price is for")
    model: str = Field(default="", description="the provider's name or deployment; empty: the same")
    fallback: tuple[Name, ...] = Field(default=(), max_length=8)
    timeouts: TimeoutEntry = TimeoutEntry()

    @model_validator(mode="after")
    def _billable(self) -> MediaEntry:
        if self.bills not in _BILLED[self.makes]:
            known = " or ".join(bills.value for bills in _BILLED[self.makes])
            raise ValueError(f"{self.makes.value} is billed by {known}")
        return self


class Catalog(_Strict):
    """All providers and models, and the default model."""

    providers: dict[Name, ProviderEntry] = Field(default_factory=dict)
    models: dict[Name, ModelEntry] = Field(default_factory=dict)
    embeddings: dict[Name, EmbeddingEntry] = Field(default_factory=dict)
    media: dict[Name, MediaEntry] = Field(default_factory=dict)
    default: str = ""

    @model_validator(mode="after")
    def _connected(self) -> Catalog:
        faults = [
            f"models.{name}.provider: there is no provider {model.provider}"
            for name, model in self.models.items()
            if model.provider not in self.providers
        ]
        faults += [
            f"models.{name}.fallback: {'it names itself' if other == name else f'there is no model {other}'}"
            for name, model in self.models.items()
            for other in model.fallback
            if other == name or other not in self.models
        ]
        faults += [
            f"models.{name}.cheaper: there is no other model {model.cheaper}"
            for name, model in self.models.items()
            if model.cheaper and (model.cheaper == name or model.cheaper not in self.models)
        ]
        faults += [
            f"embeddings.{name}.provider: {entry.provider} is no provider that speaks OpenAI's embeddings"
            for name, entry in self.embeddings.items()
            if entry.folder is None
            and (entry.provider not in self.providers or self.providers[entry.provider].kind not in EMBEDDING_KINDS)
        ]
        faults += [
            f"embeddings.{name}: there is a model {name} already" for name in self.embeddings if name in self.models
        ]
        faults += [
            f"models.{name}.abilities: {self.providers[model.provider].kind.value} takes no {ability.value}"
            for name, model in self.models.items()
            if model.provider in self.providers
            for ability in sorted(model.abilities & _UNSPOKEN.get(self.providers[model.provider].kind, frozenset()))
        ]
        faults += self._media_faults()
        if self.default and self.default not in self.models:
            faults.append(f"default: there is no model {self.default}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _media_faults(self) -> list[str]:
        faults = [
            f"media.{name}.provider: {entry.provider} is no provider that speaks OpenAI's images and audio"
            for name, entry in self.media.items()
            if entry.provider not in self.providers or self.providers[entry.provider].kind not in MEDIA_KINDS
        ]
        faults += [
            f"media.{name}.fallback: there is no other model {other} for {entry.makes.value}"
            for name, entry in self.media.items()
            for other in entry.fallback
            if other == name or other not in self.media or self.media[other].makes is not entry.makes
        ]
        taken = self.models.keys() | self.embeddings.keys()
        return [*faults, *(f"media.{name}: there is a model {name} already" for name in self.media if name in taken)]


def read_catalog(path: Path) -> dict[str, Any]:
    """The file as data; `checked` judges it. Raises CatalogInvalid with the line of a fault in the YAML."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogInvalid(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise CatalogInvalid(f"{path} is not YAML: {error}") from None
    if not isinstance(found, dict):
        raise CatalogInvalid(f"{path} must hold providers and models")
    return found


def checked(data: dict[str, Any]) -> Catalog:
    """Raises CatalogInvalid with every fault, each with its path and without the value, which may be a key."""
    try:
        return Catalog.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'catalogue'}: {fault['msg']}" for fault in error.errors()]
        raise CatalogInvalid("\n".join(faults)) from None
