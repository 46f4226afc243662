"""How many tokens a text or a prompt is: exactly where the model's vocabulary is here, else estimated and marked so.

Everything is pure and computes: a megabyte takes about a second, so long prompts are counted in a thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from services.inference.vocabularies import ChatTemplate

_A_MESSAGE: Final = 3
_A_NAME: Final = 1
_THE_ANSWER: Final = 3
_SIGNS: Final = re.compile(r"[!-@\[-`{-~\n]+")
_WIDE: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")


class TokenizerUnknown(Exception):
    """The file's tokenizer is damaged or of a kind that is not read here. A tokenizer.json of the model will do."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of tokens. Estimated when the model's own tokenizer, or how it frames messages, is not known here."""

    tokens: int
    estimated: bool


class Spoken(Protocol):
    """A message, as far as counting goes."""

    @property
    def role(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def name(self) -> str: ...


class Tokenizer(Protocol):
    """Splits text as a model does. Words that look like control tokens are plain text."""

    def count(self, text: str) -> int:
        """How many tokens."""

    def cut(self, text: str, limit: int) -> str:
        """The longest beginning of at most `limit` tokens, to within a token; never half a character."""


class Estimator:
    """For models whose vocabulary nobody publishes: by the kinds of characters, measured against real vocabularies."""

    def count(self, text: str) -> int:
        plain = len(text.encode("ascii", "ignore"))
        signs = sum(map(len, _SIGNS.findall(text)))
        wide = sum(map(len, _WIDE.findall(text)))
        other = len(text) - plain - wide
        return -(-((plain - signs) * 9 + signs * 20 + wide * 34 + other * 18) // 40)

    def cut(self, text: str, limit: int) -> str:
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count(text[:middle]) <= limit else (low, middle - 1)
        return text[:low]


@dataclass(frozen=True, slots=True)
class ModelTokens:
    """How one model counts. Without a chat template messages are framed as OpenAI's models frame them."""

    tokenizer: Tokenizer
    template: ChatTemplate | None = None
    exact_text: bool = True
    exact_messages: bool = True

    def messages(self, messages: Sequence[Spoken]) -> Count:
        """Tokens of the prompt, with everything the model reads around the texts."""
        if self.template:
            said = [{"role": str(one.role), "content": one.text} for one in messages]
            tokens = self.template.count(said)
            if tokens is not None:
                return Count(tokens, estimated=not self.exact_messages)
        return Count(_framed(self.tokenizer, messages), estimated=self.template is not None or not self.exact_messages)


Load = Callable[[], ModelTokens]
_ESTIMATED: Final = ModelTokens(Estimator(), exact_text=False, exact_messages=False)


class Tokenizers:
    """The tokenizers of all models, each loaded when it is first needed and kept."""

    def __init__(self, models: Mapping[str, Load]) -> None:
        """By model; a name stands also for what follows it after a dash or colon, the longest name first."""
        self._loads = dict(models)
        self._loaded: dict[str, ModelTokens] = {}
        self._loading = threading.Lock()

    def count(self, messages: Sequence[Spoken], model: str) -> Count:
        """Tokens of a prompt for the model."""
        return self.of(model).messages(messages)

    def count_text(self, text: str, model: str) -> Count:
        """Tokens of a bare text for the model."""
        found = self.of(model)
        return Count(found.tokenizer.count(text), estimated=not found.exact_text)

    def cut(self, text: str, model: str, limit: int) -> tuple[str, bool]:
        """The text cut to `limit` of the model's tokens, and whether it had to be."""
        if len(text.encode()) <= limit:  # no token is shorter than a byte
            return text, False
        tokenizer = self.of(model).tokenizer
        if tokenizer.count(text) <= limit:
            return text, False
        return tokenizer.cut(text, limit), True

    def known(self, model: str) -> bool:
        """Whether the model's own vocabulary is here."""
        return self._name(model.removeprefix("ft:")) is not None

    def of(self, model: str) -> ModelTokens:
        """How the model counts. A model's first call reads its vocabulary, a second or two: make it in a thread."""
        name = self._name(model.removeprefix("ft:"))
        if name is None:
            return _ESTIMATED
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._loads[name]()
        return self._loaded[name]

    def _name(self, model: str) -> str | None:
        fitting = (name for name in self._loads if model == name or model.startswith((f"{name}-", f"{name}:")))
        return max(fitting, key=len, default=None)


def known_tokenizers(files: Mapping[str, Path]) -> Tokenizers:
    """OpenAI's models, and those of the site: a tokenizer.json or a GGUF by the model's name."""

    def loads(path: Path) -> Load:
        return lambda: load_file(path)

    return Tokenizers({**_OPENAI, **{name: loads(path) for name, path in files.items()}})


def load_file(path: Path) -> ModelTokens:
    """The tokenizer in a file; messages are exact when the file has their chat template. Raises TokenizerUnknown."""
    found = _vocabularies()
    vocabulary, template = (found.from_gguf if path.suffix == ".gguf" else found.from_tokenizer_json)(path)
    return ModelTokens(vocabulary, template, exact_messages=template is not None)


def _framed(tokenizer: Tokenizer, messages: Sequence[Spoken]) -> int:
    """cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken."""
    return _THE_ANSWER + sum(
        _A_MESSAGE
        + tokenizer.count(str(one.role))
        + tokenizer.count(one.text)
        + (_A_NAME + tokenizer.count(one.name) if one.name else 0)
        for one in messages
    )


def _vocabularies() -> Any:
    """Imported with the first: a replica that counts nothing does without their libraries."""
    return import_module("services.inference.vocabularies")


def _openai(vocabulary: str, *, documented: bool) -> Load:
    """OpenAI documents the framing of its older models; the newer ones are counted alike and marked estimated."""
    return lambda: ModelTokens(getattr(_vocabularies(), vocabulary)(), exact_messages=documented)


_OPENAI: Final[Mapping[str, Load]] = {
    "gpt-3.5-turbo": _openai("cl100k_base", documented=True),
    "gpt-4": _openai("cl100k_base", documented=True),
    "gpt-4o": _openai("o200k_base", documented=True),
    "gpt-4.1": _openai("o200k_base", documented=False),
    "gpt-5": _openai("o200k_base", documented=False),
    "o1": _openai("o200k_base", documented=False),
    "o3": _openai("o200k_base", documented=False),
    "o4-mini": _openai("o200k_base", documented=False),
    "text-embedding-ada-002": _openai("cl100k_base", documented=False),
    "text-embedding-3-small": _openai("cl100k_base", documented=False),
    "text-embedding-3-large": _openai("cl100k_base", documented=False),
}

__all__ = (
    "Count",
    "Estimator",
    "ModelTokens",
    "Spoken",
    "Tokenizer",
    "TokenizerUnknown",
    "Tokenizers",
    "known_tokenizers",
    "load_file",
)
