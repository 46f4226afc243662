"""Names and addresses by what stands around them and by their form, without a language model: the plug-in `names`.

`{type: custom, severity: severe, params: {plugin: names, entities: [name, address]}}`. Quick, and blind to a
name that nobody introduces and whose first part is not in `names.txt`; the plug-in `presidio` reads the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from shared.monitors.plugin import Suspicion, chosen, held, joined

ENTITIES: Final = ("name", "address")
_SURE: Final = 0.8
_LINE: Final = 120  # an address is looked for as far before its postcode

_UPPER, _LOWER = "A-ZÀ-ÖØ-ÞĀŁŚŽŻČŠ", "a-zß-öø-ÿāłśžżčšę"
_PART: Final = (
    rf"(?:(?:Mc|Mac|[OD]['’])?[{_UPPER}][{_LOWER}]+(?:[-'’][{_UPPER}]?[{_LOWER}]{{2,}})*|(?:[{_UPPER}]\.)+(?!\w))"  # noqa: RUF001 - as typed
)
_LINK: Final = r"(?:(?:van|von|de|del|della|di|da|dos|der|den|la|le|zu|bin|al|du|am|an|im) ){0,2}"
_SUFFIX: Final = r"(?:,? (?:Jr\.?|Sr\.?|MD|PhD|DDS|DVM|Esq\.?|B\.(?:A|Sc|Eng)\.|MBA\.?|II|III|IV)(?!\w))?"
_TITLE: Final = (
    r"(?:(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Sir|Herr|Frau|Monsieur|Madame|Mme|Mlle|Univ\.Prof|Dipl\.-Ing|Ing)\.? )"
)
_NO_NAMES: Final = (
    "I|A|An|The|This|That|These|Those|He|She|It|We|You|They|My|Our|Your|His|Her|Its|Their|No|Not|Yes|Please"
    "|Thanks|Thank|Sorry|All|And|But|Or|If|Then|When|After|Before|With|By|So|In|On|At|As|To|For|From|Of|Monday"
    "|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|January|February|March|April|May|June|July|August"
    "|September|October|November|December|Dear|Call|Called|Contact|Hi|Hello|Yours|Regards|Sincerely|Signed|Patient"
    "|Customer|Client|Employee|Liebe|Lieber|Cher|Chère|Name"
)
_RUN: Final = re.compile(
    rf"(?<!\w)(?:{_TITLE}+{_LINK})?(?!(?:{_NO_NAMES})\b){_PART}(?: {_LINK}{_PART}){{0,3}}{_SUFFIX}"
)
_PARTS: Final = re.compile(_PART)
_FIRMS: Final = frozenset({"Ltd", "Inc", "Group", "Sons", "Brothers", "University", "Street", "Foundation"})
_INTRODUCED: Final = re.compile(
    r"\b(?:my name is|name(?: is)?:?|i am|i['’]m|this is|call|called|named|dear|sincerely,|yours,|regards,"  # noqa: RUF001
    r"|signed,?|signed by|attn:?|patient:?|customer:?|client:?|employee:?|ich hei(?:ß|ss)e|mein name ist|me llamo"
    r"|je m['’]appelle|mi chiamo|liebe[rs]?|chère?|querid[oa]) $",  # noqa: RUF001
    re.IGNORECASE,
)
_OPENING: Final = 20  # no introduction is longer

_POSTCODE: Final = re.compile(
    r"\b[A-Z]{2} \d{5}(?:-\d{4})?\b|\b[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}\b"
    rf"|\b\d{{5}} {_PART}(?:[ -](?:{_LINK}{_PART}|\d\d\b)){{0,3}}"
)
_WORD: Final = r"[\w'’.-]+"  # noqa: RUF001
_CHUNK: Final = (
    rf"(?:(?:Flat|Studio|Apt\.?|Apartment|Unit|Suite|PSC|Box|Floor) \w{{1,6}}(?: Box \w{{1,6}})?"
    rf"|\d{{1,6}}[a-z]?(?:[/-]\d+\w?)?,? {_WORD}(?: {_WORD}){{0,5}}"
    rf"|(?:rue|avenue|boulevard|chemin|place|via|calle|rua) {_WORD}(?: {_WORD}){{0,4}}"
    rf"|(?:{_PART} ){{0,3}}{_PART}(?: [{_LOWER}]+)?(?: \d{{1,5}}\w?(?:[/-]\d+\w?)?)?|US[A-Z]{{1,4}} {_PART})"
)
_BEFORE_POSTCODE: Final = re.compile(rf"(?:\b{_CHUNK}[,\n] ?){{1,3}}(?:(?:{_PART} ){{0,3}}{_PART},? |[ADF]PO )?$")
_WAYS: Final = (
    "Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Court|Ct|Square|Sq|Boulevard|Blvd|Way|Place|Pl|Terrace|Close"
)
_STREET: Final = re.compile(
    rf"\b\d{{1,5}}[A-Za-z]? (?:{_PART} ){{1,4}}(?:{_WAYS})\b\.?(?:, {_PART}(?: {_PART})?)?"
    rf"|\b[{_UPPER}][\w-]*(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|ufer) \d{{1,4}}[a-z]?(?:[/-]\d+)?\b"
)


class FormalNames:
    """Finds the kinds that `entities` names, both without any."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._kinds = chosen(params, ENTITIES)

    async def judge(self, sentence: str) -> Suspicion | None:
        """Where names and addresses stand in the sentence."""
        return self.find(sentence)

    def find(self, sentence: str) -> Suspicion | None:
        """The same at once."""
        found = {kind: [*_FINDERS[kind](sentence)] for kind in self._kinds}
        kinds = sorted(kind for kind, spans in found.items() if spans)
        if not kinds:
            return None
        spans = joined(sentence, [span for kind in kinds for span in found[kind]])
        return Suspicion(_SURE, held(kinds), spans)


def _names(text: str) -> Iterator[tuple[int, int]]:
    """Who has a title or is introduced, else from a given name with more behind it on."""
    for run in _RUN.finditer(text):
        parts = [*_PARTS.finditer(text, run.start(), run.end())]
        if parts[-1][0] in _FIRMS:
            continue
        if re.match(_TITLE, run[0]) or _INTRODUCED.search(text, max(0, run.start() - _OPENING), run.start()):
            yield run.span()
        elif at := [part.start() for part in parts[:-1] if _is_given(part[0])]:
            yield at[0], run.end()


def _is_given(part: str) -> bool:
    first, *more = part.split("-")
    return first in _given() and all(one[0].isupper() for one in more)


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    """Lines up to a postcode, and a street with its number."""
    for code in _POSTCODE.finditer(text):
        if before := _BEFORE_POSTCODE.search(text, max(0, code.start() - _LINE), code.start()):
            yield before.start(), code.end()
    for street in _STREET.finditer(text):
        yield street.span()


_FINDERS: Final = {"name": _names, "address": _addresses}


@cache
def _given() -> frozenset[str]:
    """Common given names of Europe and the Americas, without those that are words, months or places as often."""
    return frozenset((Path(__file__).parent / "names.txt").read_text().split())
