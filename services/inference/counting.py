"""Tokens of a prompt, as the model's own tokenizer counts them where one is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.inference.providers.contract import Message, ModelCall, Sampling, estimate_input
from services.inference.route import Model


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens, and whether they are a guess."""

    tokens: int
    estimated: bool


class Counter(Protocol):
    """Counts for any model of the mesh."""

    async def count(self, model: Model, messages: Sequence[Message]) -> Count:
        """Tokens of the messages, with what the model's chat form adds."""


class EstimatingCounter:
    """Four characters a token: for models whose tokenizer is not at hand."""

    async def count(self, model: Model, messages: Sequence[Message]) -> Count:
        return Count(estimate_input(ModelCall(model.name, tuple(messages), Sampling(), 1)), estimated=True)
