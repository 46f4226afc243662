"""What a call may use at most: the lease rests on it, and the bill where a provider says nothing."""

from __future__ import annotations

import io
import math
import wave
from typing import Final

from services.inference.catalog import Bills
from services.inference.media.contract import ImageOrder, Order, SpeechOrder, TranscriptionOrder
from services.inference.peers import NOTHING_ELSE, Metered
from services.inference.providers.contract import Usage
from services.inference.purchase import Spent
from services.inference.route import Model

_CHARACTERS_A_TOKEN: Final = 4
_IMAGE_TOKENS: Final = 6240  # gpt-image-1's largest picture at its highest quality (platform.openai.com/docs/guides)
_AUDIO_TOKENS_A_SECOND: Final = 10  # OpenAI hears one token in 100 ms
_SPOKEN_TOKENS_A_CHARACTER: Final = 2  # a character is said in under 100 ms, 20 tokens a second
_TRANSCRIPT_TOKENS_A_SECOND: Final = 8
_LEAST_BYTES_A_SECOND: Final = 2000  # 16 kbit/s: compressed speech is seldom smaller


def at_most(model: Model, order: Order) -> Spent:
    """The most the order may use of the model."""
    tokens = model.bills is Bills.TOKENS
    match order:
        case ImageOrder():
            if not tokens:
                return _spent(0, 0, Metered(images=order.count))
            return _spent(_tokens(order.prompt), _IMAGE_TOKENS * order.count)
        case TranscriptionOrder():
            heard = seconds(order)
            if not tokens:
                return _spent(0, 0, Metered(audio_input=heard))
            audio = Metered(audio_input=heard * _AUDIO_TOKENS_A_SECOND)
            return _spent(_tokens(order.prompt), heard * _TRANSCRIPT_TOKENS_A_SECOND, audio)
        case SpeechOrder():
            if not tokens:
                return _spent(0, 0, Metered(audio_output=len(order.text)))
            said = Metered(audio_output=len(order.text) * _SPOKEN_TOKENS_A_CHARACTER)
            return _spent(_tokens(order.text + order.instructions), 0, said)


def seconds(order: TranscriptionOrder) -> int:
    """How long the sound is, rounded up: exact for WAV, else from its size, at least a second."""
    if order.media_type == "audio/wav":
        try:
            with wave.open(io.BytesIO(order.audio)) as sound:
                return max(1, math.ceil(float(sound.getnframes() / sound.getframerate())))
        except (wave.Error, EOFError, ZeroDivisionError):
            pass
    return max(1, -(-len(order.audio) // _LEAST_BYTES_A_SECOND))


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_A_TOKEN)


def _spent(input_tokens: int, output_tokens: int, metered: Metered = NOTHING_ELSE) -> Spent:
    return Spent(Usage(input_tokens, output_tokens, estimated=True), metered)
