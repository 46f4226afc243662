"""Which version a reference means: pure decisions over labels, weights and keys."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

PRODUCTION: Final = "production"
LATEST: Final = "latest"
DIGEST: Final = re.compile(r"[0-9a-f]{12,64}")
NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
LABEL: Final = re.compile(rf"(?!{LATEST}$)(?![0-9a-f]{{12,}}$)[a-z][a-z0-9-]{{0,31}}")


@dataclass(frozen=True, slots=True)
class Target:
    """A version's share of a label."""

    digest: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Selector:
    """One version: by digits of its digest, by number, or the newest when both are empty. The label led there."""

    digest: str = ""
    number: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """A prompt and, perhaps, what was written behind the @: a label, `latest`, a number or digits of a digest."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


def selector(version: str) -> Selector | None:
    """What a version's own name selects; None when it is a label's name or empty."""
    if version == LATEST:
        return Selector()
    if NUMBER.fullmatch(version):
        return Selector(number=int(version))
    if DIGEST.fullmatch(version):
        return Selector(digest=version)
    return None


def select(reference: Reference, labels: Mapping[str, Sequence[Target]], *, key: str) -> Selector | None:
    """What the reference selects under these labels; None when it names a label that points nowhere.

    The bare name is the label "production", or the newest version while nothing is so labelled.
    """
    if found := selector(reference.version):
        return found
    label = reference.version or PRODUCTION
    if targets := labels.get(label):
        return Selector(digest=choose(reference.name, targets, key=key).digest, label=label)
    return None if reference.version else Selector()


def choose(name: str, targets: Sequence[Target], *, key: str) -> Target:
    """The key's target, the same for ever on every machine; the heaviest without a key.

    Weighted rendezvous: each target draws its own number for the key, so changing one weight moves keys only to or from
    that target.
    """
    if not key:
        return max(targets, key=lambda target: (target.weight, target.digest))
    return max(targets, key=lambda target: (_score(name, target, key), target.digest))


def _score(name: str, target: Target, key: str) -> float:
    drawn = hashlib.sha256(f"{name}\0{target.digest}\0{key}".encode()).digest()
    uniform = (int.from_bytes(drawn[:6]) + 1) / (2**48 + 1)  # above 0, below 1
    return -target.weight / math.log(uniform)
