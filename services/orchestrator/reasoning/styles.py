"""Styles: each trait of an agent's `style` is a transformer, which shapes the prompt by its weight and afterwards
measures, in the text that really came, what it led to.

A trait of one's own is an entry point in the group `agentnet.style_transformers`, named as the trait: an object that is
a StyleTransformer. Traits nobody knows are told to the model by name and weight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from operator import methodcaller
from typing import Final, Protocol

from google.protobuf import json_format

from agentnet.orchestrator.v1 import agent_pb2
from shared.log import log

GROUP: Final = "agentnet.style_transformers"
_FAULTS: Final = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError, OSError)
_STRONG: Final = 0.66
_WEAK: Final = 0.34
_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?\n]*")


@dataclass(frozen=True, slots=True)
class Text:
    """A finished text, counted once."""

    content: str
    words: tuple[str, ...]
    sentences: int
    numbers: int

    @classmethod
    def of(cls, content: str) -> Text:
        words = tuple(word.lower() for word in _WORD.findall(content))
        sentences = sum(1 for part in _SENTENCE.findall(content) if _WORD.search(part))
        numbers = sum(1 for word in words if not word.isalpha() and any(sign.isdigit() for sign in word))
        return cls(content, words, max(sentences, 1), numbers)

    def count(self, marks: frozenset[str]) -> int:
        return sum(1 for word in self.words if word in marks)


class StyleTransformer(Protocol):
    """One trait."""

    def directive(self, weight: float) -> str:
        """What the agent is told, one sentence; empty: nothing."""

    def insight(self, weight: float, text: Text) -> str:
        """What can be seen of the trait in a finished text, one sentence; only what was measured. Empty: nothing."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A trait with a sentence for much, some and little of it, and words that show it."""

    strong: str
    some: str
    weak: str
    shows: str
    marks: frozenset[str]

    def directive(self, weight: float) -> str:
        return self.strong if weight >= _STRONG else self.some if weight >= _WEAK else self.weak

    def insight(self, weight: float, text: Text) -> str:
        del weight
        return f"{text.count(self.marks)} {self.shows} in {text.sentences} sentences"


@dataclass(frozen=True, slots=True)
class Variety:
    """Creativity: shown by how many different words there are."""

    def directive(self, weight: float) -> str:
        if weight >= _STRONG:
            return "Look for ideas nobody has named yet; unusual comparisons are welcome."
        return "" if weight >= _WEAK else "Keep to what is proven; offer nothing untried."

    def insight(self, weight: float, text: Text) -> str:
        del weight
        share = len(set(text.words)) / len(text.words) if text.words else 0
        return f"{share:.0%} of {len(text.words)} words are different ones"


@dataclass(frozen=True, slots=True)
class Brevity:
    """Conciseness: shown by the length of sentences."""

    def directive(self, weight: float) -> str:
        if weight >= _STRONG:
            return "Be brief: short sentences, nothing twice."
        return "" if weight >= _WEAK else "Explain at length; leave nothing to be guessed."

    def insight(self, weight: float, text: Text) -> str:
        del weight
        return f"{len(text.words) / text.sentences:.1f} words a sentence"


@dataclass(frozen=True, slots=True)
class Analysis:
    """Being analytical: shown by numbers and comparisons."""

    def directive(self, weight: float) -> str:
        if weight >= _STRONG:
            return "Take the question apart; compare options by numbers where there are any."
        return "Weigh one option against another." if weight >= _WEAK else ""

    def insight(self, weight: float, text: Text) -> str:
        del weight
        compared = text.count(frozenset({"than", "versus", "whereas", "compared", "more", "less", "fewer"}))
        return f"{text.numbers} numbers and {compared} comparisons"


_LOGIC = Graded(
    "Argue step by step; each claim follows from one before it.",
    "Give a reason for what you claim.",
    "Trust your intuition; reasons may come later.",
    "words of reasoning",
    frozenset({"because", "therefore", "since", "so", "thus", "hence", "if", "then", "implies", "follows"}),
)
_EMPATHY = Graded(
    "Speak to how the reader feels before you speak of the matter.",
    "Be kind.",
    "",
    "words to the reader",
    frozenset({"you", "your", "feel", "understand", "we", "us", "together", "sorry"}),
)
_FORMALITY = Graded(
    "Write formally, without contractions.",
    "",
    "Write as you would speak to a friend.",
    "contractions",
    frozenset({"it's", "don't", "can't", "won't", "i'm", "you're", "that's", "isn't", "doesn't", "we're"}),
)
_SKEPTICISM = Graded(
    "Doubt what was said: name what would prove it wrong.",
    "Say what you are not sure of.",
    "",
    "words of doubt",
    frozenset({"but", "however", "unless", "might", "may", "risk", "fail", "fails", "doubt", "unclear", "although"}),
)
_SHIPPED: Final[Mapping[str, StyleTransformer]] = {
    "logic": _LOGIC,
    "creativity": Variety(),
    "analytical": Analysis(),
    "conciseness": Brevity(),
    "empathy": _EMPATHY,
    "formality": _FORMALITY,
    "skepticism": _SKEPTICISM,
}


@cache
def registry() -> Mapping[str, StyleTransformer]:
    """All transformers by trait: those that ship, and what is installed."""
    found: dict[str, StyleTransformer] = dict(_SHIPPED)
    for point in entry_points(group=GROUP):
        try:
            made = point.load()
            found[point.name] = made() if isinstance(made, type) else made
        except (ImportError, AttributeError, TypeError) as error:
            log.warning("style.not_loaded", trait=point.name, error=str(error))
    return found


def traits(agent: agent_pb2.Agent) -> dict[str, float]:
    """The agent's traits that have a weight, in order of name."""
    style = json_format.MessageToDict(agent.style) if agent.HasField("style") else {}
    return {
        name: float(weight)
        for name, weight in sorted(style.items())
        if isinstance(weight, int | float) and not isinstance(weight, bool)
    }


def directive(agent: agent_pb2.Agent) -> str:
    """What the agent's style adds to its system prompt; empty without one."""
    told = [_told(name, weight) for name, weight in traits(agent).items()]
    return " ".join(["Your style:", *filter(None, told)]) if any(told) else ""


def insights(agent: agent_pb2.Agent, content: str) -> Sequence[str]:
    """What each trait of the agent's style led to in a finished text, as `logic 0.9: 3 words of reasoning …`."""
    known = registry()
    weights = {name: weight for name, weight in traits(agent).items() if name in known}
    if not weights:
        return ()
    text = Text.of(content)
    seen = {name: _said(name, known[name], methodcaller("insight", weight, text)) for name, weight in weights.items()}
    return [f"{name} {weights[name]:g}: {found}" for name, found in seen.items() if found]


def _told(name: str, weight: float) -> str:
    transformer = registry().get(name)
    return _said(name, transformer, methodcaller("directive", weight)) if transformer else f"{name}: {weight:g} of 1."


def _said(name: str, transformer: StyleTransformer, asked: Callable[[StyleTransformer], str]) -> str:
    """What a transformer says. One of one's own that breaks says nothing: the turn is worth more than its style."""
    try:
        return asked(transformer)
    except _FAULTS as error:
        log.warning("style.failed", trait=name, error=f"{type(error).__name__}: {error}"[:300])
        return ""
