"""Which provider serves which model, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.inference.errors import ModelNotFound
from services.inference.providers.contract import Provider


@dataclass(frozen=True, slots=True)
class Model:
    """A model under the mesh's name for it."""

    name: str
    provider: str
    context_tokens: int = 0
    embedding: bool = False


class Router:
    """The models of this mesh."""

    def __init__(self, models: Sequence[Model], providers: Mapping[str, Provider], *, default: str) -> None:
        self._models = {model.name: model for model in models}
        self._providers = providers
        self.default = default

    def resolve(self, name: str) -> tuple[Model, Provider]:
        """The model and who serves it; the default without a name. Raises ModelNotFound."""
        model = self._models.get(name or self.default)
        if model is None or model.embedding:
            known = ", ".join(sorted(one.name for one in self._models.values() if not one.embedding))
            raise ModelNotFound(f"no model {name or self.default}; there are {known}", model=name, known=known)
        return model, self._providers[model.provider]

    def models(self) -> Sequence[Model]:
        """All of them, by name."""
        return sorted(self._models.values(), key=lambda model: model.name)
