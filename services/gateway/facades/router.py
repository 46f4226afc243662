"""Who answers: an agent by its prefix, else a model."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.facades.agents import PREFIX, Agents
from services.gateway.facades.ask import Ask, Pieces
from services.gateway.facades.media import Media
from services.gateway.facades.models import Models


@dataclass(frozen=True, slots=True)
class Answerers:
    """All there are."""

    models: Models
    agents: Agents
    media: Media

    def answer(self, ask: Ask) -> Pieces:
        """The pieces, from whoever `ask.model` names."""
        return self.agents.answer(ask) if ask.model.startswith(PREFIX) else self.models.answer(ask)
