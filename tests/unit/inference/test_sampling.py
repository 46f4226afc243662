"""What a caller asks of the draw goes out in each provider's words, and nothing goes out that was not asked."""

from __future__ import annotations

from typing import Any

import pytest

from services.inference.providers.contract import ModelCall, Role, Sampling, said
from tests.support.wire import WIRES

ASKED = Sampling(
    temperature=0.3, top_p=0.9, presence_penalty=0.5, frequency_penalty=-0.25, seed=7, stop=("END", "\n\n")
)
DRAWN = {"temperature": 0.3, "top_p": 0.9}
CHAT = {**DRAWN, "presence_penalty": 0.5, "frequency_penalty": -0.25, "seed": 7, "stop": ["END", "\n\n"]}
WORDS: dict[str, dict[str, Any]] = {
    "openai": CHAT,
    "azure": CHAT,
    "compatible": CHAT,
    "huggingface": CHAT,
    "responses": DRAWN,  # the API has no word for the others
    "anthropic": {**DRAWN, "stop_sequences": ["END", "\n\n"]},
    "tgi": {**DRAWN, "frequency_penalty": -0.25, "seed": 7, "stop": ["END", "\n\n"]},
}
KNOWN = {"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop", "stop_sequences"}


def sent(name: str, sampling: Sampling) -> dict[str, Any]:
    body = WIRES[name].dialect.request(ModelCall("m", (said(Role.USER, "Go?"),), sampling, 9)).body
    return {word: value for word, value in body.get("parameters", body).items() if word in KNOWN}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_asked_goes_out_in_the_providers_words(name: str) -> None:
    assert sent(name, ASKED) == WORDS[name]


@pytest.mark.parametrize("name", WORDS)
def test_what_is_not_asked_is_left_to_the_provider(name: str) -> None:
    assert sent(name, Sampling()) == {}


def test_nought_is_asked_for_and_not_left_out() -> None:
    asked = Sampling(temperature=0.0, presence_penalty=0.0, frequency_penalty=0.0, seed=0)
    assert sent("openai", asked) == {"temperature": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 0}
