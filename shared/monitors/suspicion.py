"""How like an attack a text is, by the words it is made of: the tier between fixed patterns and models.

The weights are learnt (`tests/bench/policy_injection.py` names their data and its licences) and calibrated: 0.5 is
where one in two hundred benign prompts, or one in twenty benign documents, would be suspected. A kilobyte takes under a
millisecond.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from array import array
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from shared.monitors.folding import plain

SOURCES: Final = (
    "prompt",
    "document",
)  # a text someone gives as an instruction, or a sentence of one that should give none
_HEADER: Final = struct.Struct("<4sBff")
_MAGIC: Final = {b"ANW1": True, b"ANW2": False}  # whether marks count
_WORD: Final = re.compile(r"\w+")
_WORD_OR_MARK: Final = re.compile(r"\w+|[^\w\s]")
_STEEPEST: Final = 60.0


@dataclass(frozen=True, slots=True)
class Lexicon:
    """One weight a bucket of words and pairs of words. `scale` and `shift` turn their mean into a logit.

    `marks` stand between words, as full stops and brackets do: they tell documents apart, and prompts only by accident.
    """

    bits: int
    scale: float
    shift: float
    weights: array[int]
    marks: bool = True

    def score(self, text: str) -> float:
        """0 to 1; 0.5 is the calibrated threshold. The empty text is like nothing."""
        found = buckets(text, self.bits, marks=self.marks)
        if not found:
            return 0.0
        margin = sum(map(self.weights.__getitem__, found)) * self.scale / math.sqrt(len(found)) + self.shift
        return 1 / (1 + math.exp(-max(-_STEEPEST, min(_STEEPEST, margin))))

    def packed(self) -> bytes:
        magic = next(name for name, marks in _MAGIC.items() if marks is self.marks)
        return _HEADER.pack(magic, self.bits, self.scale, self.shift) + zlib.compress(self.weights.tobytes(), 9)

    @classmethod
    def unpacked(cls, data: bytes) -> Lexicon:
        """Raises ValueError when this is something else."""
        magic, bits, scale, shift = _HEADER.unpack_from(data)
        weights = array("b", zlib.decompress(data[_HEADER.size :]))
        if magic not in _MAGIC or len(weights) != 1 << bits:
            raise ValueError("these are no weights of a lexicon")
        return cls(bits, scale, shift, weights, _MAGIC[magic])


def buckets(text: str, bits: int, *, marks: bool = True) -> frozenset[int]:
    """Where the text's words and pairs of neighbours are counted. Look-alikes count as what they look like."""
    mask = (1 << bits) - 1
    words = (_WORD_OR_MARK if marks else _WORD).findall(plain(text).lower())
    pairs = map(" ".join, pairwise(words))
    return frozenset(zlib.crc32(one.encode()) & mask for part in (words, pairs) for one in part)


@cache
def lexicon(source: str) -> Lexicon:
    """The one for a source."""
    return Lexicon.unpacked((Path(__file__).parent / "weights" / f"{source}.bin").read_bytes())
