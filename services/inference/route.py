"""Which provider serves which model, and who goes on when it fails, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentnet.inference.v1 import generation_pb2 as pb
from services.inference.catalog import Ability, Bills, Makes
from services.inference.errors import ModelNotFound, ModelUnable
from services.inference.films import can_watch, shown
from services.inference.providers.contract import MediaKind, ModelCall, Provider, Timeouts
from services.inference.providers.tool_form import ToolForm


@dataclass(frozen=True, slots=True)
class Model:
    """A model under the mesh's name for it."""

    name: str
    provider: str
    remote: str = ""
    context_tokens: int = 0
    embedding: bool = False
    abilities: frozenset[Ability] = frozenset()
    fallback: tuple[str, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    continues: bool = False
    cheaper: str = ""
    tokenizer: str = ""
    makes: Makes | None = None
    """None: text, or vectors."""
    bills: Bills = Bills.TOKENS

    @property
    def generates(self) -> bool:
        """Whether it takes part in conversations."""
        return not self.embedding and self.makes is None


@dataclass(frozen=True, slots=True)
class Target:
    """One place to send a call to. Free ones answer without a provider: from the cache or another caller's call."""

    model: Model
    provider: Provider
    source: pb.AnswerSource.ValueType = pb.ANSWER_SOURCE_MODEL

    @property
    def free(self) -> bool:
        return self.source != pb.ANSWER_SOURCE_MODEL

    def call(self, asked: ModelCall) -> ModelCall:
        """The call in the provider's name for the model and with the model's time limits."""
        named = replace(asked, model=self.model.remote or self.model.name, timeouts=self.model.timeouts)
        return shown(named, self.model.abilities)


class Router:
    """The models of this mesh."""

    def __init__(self, models: Sequence[Model], providers: Mapping[str, Provider], *, default: str) -> None:
        self._models = {model.name: model for model in models}
        self._providers = providers
        self.default = default

    def resolve(self, name: str) -> Model:
        """The model; the default without a name. Raises ModelNotFound."""
        model = self._models.get(name or self.default)
        if model is None or not model.generates:
            raise _unknown(name or self.default, (one.name for one in self._models.values() if one.generates))
        return model

    def making(self, makes: Makes, name: str) -> tuple[Target, ...]:
        """The model that makes such things, the first of them without a name; then who goes on for it. Raises
        ModelNotFound.
        """
        known = [model for model in self._models.values() if model.makes is makes]
        found = next((model for model in known if name in ("", model.name)), None)
        if found is None:
            raise _unknown(name or f"for {makes.value}", (model.name for model in known))
        chain = (found, *(self._models[other] for other in found.fallback))
        return tuple(Target(model, self._providers[model.provider]) for model in chain)

    def chain(self, model: Model, call: ModelCall, *, fallback: Sequence[str] | None) -> tuple[Target, ...]:
        """The model, then who goes on for it, each once and only if it can do what the call asks.

        `fallback` replaces the model's own chain. Raises ModelNotFound, and ModelUnable when the model itself cannot.
        """
        needed = needs(call)
        blind = set() if can_watch(call, model.abilities) else {Ability.VIDEO}
        if missing := (needed - _able(model)) | blind:
            names = ", ".join(sorted(ability.value for ability in missing))
            raise ModelUnable(f"{model.name} cannot do: {names}", model=model.name, missing=names)
        others = [self.resolve(name) for name in (model.fallback if fallback is None else fallback)]
        able = [other for other in others if needed <= _able(other) and can_watch(call, other.abilities)]
        distinct = {one.name: one for one in (model, *able)}
        return tuple(Target(one, self._provider(one, call)) for one in distinct.values())

    def cheaper(self, model: Model) -> Sequence[Model]:
        """The cheaper model, then its cheaper one, and so on; each once."""
        found: dict[str, Model] = {}
        while model.cheaper and model.cheaper not in found:
            model = self._models[model.cheaper]
            found[model.name] = model
        return tuple(found.values())

    def no_dearer(self, chain: Sequence[Target], *, than: Model, asked: Model) -> tuple[Target, ...]:
        """The chain of a model that calls for `asked` were ordered to, without those they are to be kept from."""
        dearer = {one.name for one in self._models.values() if than in self.cheaper(one)} | {asked.name}
        return tuple(target for target in chain if target.model.name not in dearer - {than.name})

    def _provider(self, model: Model, call: ModelCall) -> Provider:
        provider = self._providers[model.provider]
        own = Ability.TOOLS in model.abilities or not _speaks_of_tools(call)
        return provider if own else ToolForm(provider)

    def models(self) -> Sequence[Model]:
        """All of them, by name."""
        return sorted(self._models.values(), key=lambda model: model.name)


def _unknown(name: str, known: Iterable[str]) -> ModelNotFound:
    names = ", ".join(sorted(known)) or "none"
    return ModelNotFound(f"no model {name}; there are {names}", model=name, known=names)


def _able(model: Model) -> frozenset[Ability]:
    """What a model does by itself, and tools where it can be held to a form."""
    by_form = {Ability.TOOLS} if Ability.JSON_SCHEMA in model.abilities else frozenset[Ability]()
    return model.abilities | by_form


def _speaks_of_tools(call: ModelCall) -> bool:
    return bool(call.tools) or any(message.tool_calls or message.tool_results for message in call.messages)


def needs(call: ModelCall) -> frozenset[Ability]:
    """What a model must be able to do for a call. A JSON schema is checked here, so every model may try."""
    kinds = {media.kind for message in call.messages for media in message.media}
    asked = {
        Ability.IMAGE: MediaKind.IMAGE in kinds,
        Ability.AUDIO: MediaKind.AUDIO in kinds,
        Ability.TOOLS: bool(call.tools),
    }
    return frozenset(ability for ability, wanted in asked.items() if wanted)
