"""Which protocol writes the errors of which method, for those who are refused at the door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.gateway.facades import anthropic_errors, openai_errors
from services.gateway.facades.answering import Shape

_SHAPES: Final[Mapping[str, Shape]] = {
    "agentnet.gateway.v1.AnthropicService": anthropic_errors.SHAPE,
    "agentnet.gateway.v1.OpenaiService": openai_errors.SHAPE,
}


def shape_of(path: str) -> Shape | None:
    """The shape of the errors at this gRPC path; None for google.rpc.Status."""
    return _SHAPES.get(path.split("/")[1] if path.startswith("/") else "")
