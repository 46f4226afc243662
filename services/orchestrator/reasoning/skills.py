"""Skills: folders with a SKILL.md each, below the mesh's own folder of skills, which agents name.

A SKILL.md begins with YAML between two lines `---` (`name`, `description`); the rest is what to do. An agent is always
told what skills it has; the text of a skill comes with a question whose words are the skill's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from agentnet.orchestrator.v1 import agent_pb2
from shared.log import log

_FILE: Final = "SKILL.md"
_FORM: Final = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)
_WORD: Final = re.compile(r"[a-z0-9]{4,}")
_TOLD_CHARACTERS: Final = 12_000
_TOLD_AT_ONCE: Final = 3


@dataclass(frozen=True, slots=True)
class Skill:
    """What one folder says."""

    name: str
    description: str
    text: str

    def fits(self, asked: frozenset[str]) -> int:
        """How many of a question's words are the skill's."""
        return len(asked & frozenset(_WORD.findall(f"{self.name} {self.description}".lower())))


class Skills:
    """The skills below one folder, read once each."""

    def __init__(self, root: Path | None) -> None:
        self._root = root.resolve() if root else None
        self._read: dict[str, tuple[Skill, ...]] = {}

    def of(self, agent: agent_pb2.Agent) -> list[Skill]:
        """The agent's skills, each once, in the order of its folders."""
        found = (skill for folder in agent.skills_directories for skill in self._below(folder))
        return list({skill.name: skill for skill in found}.values())

    def directive(self, agent: agent_pb2.Agent, asked: str) -> str:
        """What an agent is told of its skills for a question; empty without any."""
        skills = self.of(agent)
        if not skills:
            return ""
        words = frozenset(_WORD.findall(asked.lower()))
        fitting = sorted((skill for skill in skills if skill.fits(words)), key=lambda skill: -skill.fits(words))
        told = ["Your skills:", *(f"- {skill.name}: {skill.description}" for skill in skills)]
        told += [f"Skill {skill.name}:\n{skill.text}" for skill in fitting[:_TOLD_AT_ONCE]]
        return "\n".join(told)[:_TOLD_CHARACTERS]

    def _below(self, folder: str) -> Sequence[Skill]:
        if folder not in self._read:
            self._read[folder] = tuple(self._found(folder))
        return self._read[folder]

    def _found(self, folder: str) -> list[Skill]:
        """A folder that leads out of the root, by a link too, has no skills."""
        if self._root is None:
            return []
        place = (self._root / folder).resolve()
        if not place.is_relative_to(self._root) or not place.is_dir():
            log.warning("skills.no_folder", folder=folder)
            return []
        files = sorted(file for file in (*place.glob(_FILE), *place.glob(f"*/{_FILE}")))
        return [_skill(file) for file in files if file.resolve().is_relative_to(self._root)]


def _skill(file: Path) -> Skill:
    found = _FORM.match(file.read_text())
    head = yaml.safe_load(found[1]) if found else {}
    about = head if isinstance(head, dict) else {}
    body = found[2] if found else file.read_text()
    return Skill(str(about.get("name", file.parent.name)), str(about.get("description", "")), body.strip())
