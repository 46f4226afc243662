"""Rules too slow for every character: likeness to known texts, classifiers, plug-ins. They are shown sentences."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from services.policy.classifiers import Classifiers
from services.policy.peers import ModelPeer
from shared.errors import MeshError
from shared.log import log
from shared.monitors import plugin
from shared.monitors.pipeline import ERROR, STOPS, Finding, GuardrailContext, Outcome, Report, worst
from shared.monitors.plugin import Suspicion
from shared.monitors.rules import EXCUSED, WINDOWED, Action, Bundle, Mode, Rule, RuleType, Verdict
from shared.monitors.sentences import Sentence, Sentences
from shared.monitors.stream import eased
from shared.monitors.suspicion import lexicon

_CACHE: Final = 4096
_AT_ONCE: Final = 8
_THRESHOLD: Final = 0.5
_HARMLESS: Final = "The weather is fine today."
_TRIES: Final = 6


class WindowedGuardrail:
    """Judges each sentence by each such rule, several at once. A plug-in's rule may say from which score on it acts."""

    name = "windowed"

    def __init__(self, models: ModelPeer, classifiers: Classifiers) -> None:
        self._models = models
        self._classifiers = classifiers
        self._vectors: OrderedDict[str, tuple[float, ...]] = OrderedDict()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._tries: dict[tuple[object, ...], int] = {}

    async def warm(self, bundles: Iterable[Bundle]) -> None:
        """Asks what their rules for sentences ask, once: a cold model takes longer than a text may wait. What does not
        answer is asked again with the next call, a few times.
        """
        for rule, holder in ((rule, bundle) for bundle in bundles for rule in bundle.rules if rule.type in WINDOWED):
            known = holder.embedding_sets.get(str(rule.params.get("embedding_set")), ())
            asked = (rule.type, rule.params.get("model"), rule.params.get("plugin"), known)
            if self._tries.get(asked, 0) < _TRIES:
                self._tries[asked] = self._tries.get(asked, 0) + 1
                try:
                    await self._suspicion(rule, holder, _HARMLESS)
                    self._tries[asked] = _TRIES
                except MeshError as error:
                    log.info("rule.cold", rule=rule.name, bundle=holder.label, error=error.message)

    async def judge(self, text: str, context: GuardrailContext) -> Outcome:
        rules = [
            (eased(rule, bundle.mode, context.target), bundle)
            for bundle in context.bundles
            for rule in bundle.rules
            if rule.type in WINDOWED and rule.target in (None, context.target)
        ]
        if not rules or not text:
            return Outcome(text)
        sentences, whole = cut(text), [Sentence(0, text)]
        judged = await asyncio.gather(
            *(self._judged(rule, bundle, whole if _reads_all(rule) else sentences, context) for rule, bundle in rules)
        )
        found = tuple(one for some, _ in judged for one in some)
        reports = tuple(report for _, report in judged)
        unjudged = any(
            report.status == ERROR and bundle.mode is Mode.STRICT
            for report, (_, bundle) in zip(reports, rules, strict=True)
        )
        if unjudged or any(one.verdict.action in STOPS for one in found):
            return Outcome("", found, reports, blocked=True)
        return Outcome(_redacted(text, found), found, reports)

    async def _judged(
        self, rule: Rule, bundle: Bundle, stretches: Sequence[Sentence], context: GuardrailContext
    ) -> tuple[list[Finding], Report]:
        """What one rule makes of all its stretches; nothing when it cannot judge them."""
        began, problem = time.perf_counter(), ""
        found: list[Finding] = []
        try:
            for some in await asyncio.gather(*(self._findings(rule, bundle, one, context) for one in stretches)):
                found += some
        except MeshError as error:
            log.warning("rule.failed", rule=rule.name, bundle=bundle.label, error=error.message)
            problem = error.message
        elapsed = timedelta(seconds=time.perf_counter() - began)
        excused = rule.name in context.overridden
        status = EXCUSED if excused else ERROR if problem else worst(found)
        return found, Report(rule.name, status, elapsed, problem)

    async def _findings(
        self, rule: Rule, bundle: Bundle, sentence: Sentence, context: GuardrailContext
    ) -> list[Finding]:
        async with self._turn:
            suspicion = await self._suspicion(rule, bundle, sentence.text)
        if suspicion is None:
            return []
        excused = rule.name in context.overridden
        action = Action.ALLOW if excused else rule.acts_on(context.target)
        why = f"{suspicion.rationale} (score {suspicion.score:.2f})"
        spans = _within(sentence.text, suspicion.spans) or ((0, len(sentence.text.rstrip())),)
        places = [(sentence.start + start, sentence.start + end) for start, end in spans]
        return [Finding(Verdict(rule, bundle.label, action, context.target, start, end), why) for start, end in places]

    async def _suspicion(self, rule: Rule, bundle: Bundle, sentence: str) -> Suspicion | None:
        match rule.type:
            case RuleType.SEMANTIC_SIMILARITY:
                return await self._likeness(rule, bundle, sentence)
            case RuleType.LLM_CLASSIFIER:
                return await self._classified(rule, sentence)
            case RuleType.INJECTION_SCORE:
                return _scored(rule, sentence)
            case RuleType.ONNX_CLASSIFIER:
                return await self._rated(rule, sentence)
            case _:
                found = await plugin.judge(str(rule.params["plugin"]), rule.params, sentence)
                least = float(str(rule.params.get("threshold", _THRESHOLD)))
                return found if found and found.score >= least else None

    async def _likeness(self, rule: Rule, bundle: Bundle, sentence: str) -> Suspicion | None:
        """Likeness to the nearest text of the set. A set nobody has filled is like nothing."""
        name = str(rule.params["embedding_set"])
        known = bundle.embedding_sets.get(name, ())
        if not known:
            return None
        vectors = await self._embedded([sentence, *known])
        score = max(sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
        if score <= float(str(rule.params["max_similarity"])):
            return None
        return Suspicion(score, f"the sentence is like a text of {name}")

    async def _classified(self, rule: Rule, sentence: str) -> Suspicion | None:
        question = str(rule.params.get("question", f"Does the text break the rule {rule.name.replace('_', ' ')}?"))
        score = await self._models.rate(str(rule.params["model"]), question, sentence)
        if score < float(str(rule.params["threshold"])):
            return None
        return Suspicion(score, f"the classifier {rule.params['model']} says yes")

    async def _rated(self, rule: Rule, sentence: str) -> Suspicion | None:
        model = str(rule.params["model"])
        reads_text = await self._classifiers.reads_text(model)
        vector = () if reads_text else (await self._embedded([sentence]))[0]
        score = await self._classifiers.rate(model, sentence, vector)
        if score < float(str(rule.params["threshold"])):
            return None
        return Suspicion(score, f"the classifier {model} says yes")

    async def _embedded(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        made = await self._models.embed(list(missing.values())) if missing else []
        fresh = dict(zip(missing, made, strict=True))
        vectors = [fresh[key] if key in fresh else self._vectors[key] for key in keys]
        self._vectors |= fresh
        while len(self._vectors) > _CACHE:
            self._vectors.popitem(last=False)
        return vectors


def _reads_all(rule: Rule) -> bool:
    """Whether the rule is about a text as a whole and not about its sentences."""
    return rule.type is RuleType.INJECTION_SCORE and rule.params.get("source", "prompt") == "prompt"


def _scored(rule: Rule, text: str) -> Suspicion | None:
    source = str(rule.params.get("source", "prompt"))
    score = lexicon(source).score(text)
    if score < float(str(rule.params.get("threshold", _THRESHOLD))):
        return None
    return Suspicion(score, f"the words are those of an attack, as {source}s go")


def cut(text: str) -> list[Sentence]:
    """The sentences of a whole text."""
    sentences = Sentences()
    return [*sentences.feed(text), *sentences.finish()]


def _within(text: str, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The spans as far as they lie in the text."""
    inside = ((max(0, start), min(len(text), end)) for start, end in spans)
    return tuple((start, end) for start, end in inside if start < end)


def _redacted(text: str, found: Sequence[Finding]) -> str:
    """The text with marks in the place of what must not be shown: one mark, the first rule's, where spans overlap."""
    hidden = [one.verdict for one in found if one.verdict.action is Action.REDACT]
    shown, at = [], 0
    for verdict in sorted(hidden, key=lambda one: (one.start, -one.end)):
        rule = verdict.rule
        if verdict.start >= at:
            shown += [text[at : verdict.start], rule.replacement or f"[REDACTED:{rule.name}]"]
        at = max(at, verdict.end)
    return "".join([*shown, text[at:]])
