"""Messages of a conversation as the prompt of one turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ROLES: Final = {"": "user", "user": "user", "human": "user", "assistant": "assistant", "ai": "assistant",
                "system": "system"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """What was said, by whom: "user", "assistant" or "system", or a name."""

    role: str
    text: str
    name: str = ""


def prompt(messages: Sequence[Message], *, takes_data: bool) -> str:
    """The last message, after what was said before; for an agent that takes data it alone."""
    *before, last = messages
    if takes_data or not before:
        return last.text
    told = "\n".join(f"{one.name or one.role}: {one.text.strip()}" for one in before)
    return f"The conversation so far:\n{told}\n\n{last.name or last.role}: {last.text}"
