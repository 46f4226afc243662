"""A stream under rules of both kinds: each character by the automaton, each sentence by someone who takes longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shared.monitors.pipeline import Outcome
from shared.monitors.rules import Verdict
from shared.monitors.sentences import Sentence, Sentences
from shared.monitors.stream import Ruling, StreamMonitor

Check = Callable[[str], Awaitable[Outcome]]


class WindowedMonitor:
    """Wraps a StreamMonitor: text it releases waits for the end of its sentence, which `check` is asked about. Whoever
    has no rule for sentences in force does not wrap, and waits for nothing.
    """

    def __init__(self, monitor: StreamMonitor, check: Check) -> None:
        self._monitor = monitor
        self._check = check
        self._sentences = Sentences()

    async def feed(self, text: str) -> Ruling:
        """Judges the next piece. What `check` raises passes through: the caller knows whether its mode is strict."""
        ruling = self._monitor.feed(text)
        ready = self._sentences.feed(ruling.text)
        if ruling.blocked:
            ready += self._sentences.finish()
        return await self._judged(ruling, ready)

    async def finish(self) -> Ruling:
        """Judges what is left."""
        ruling = self._monitor.finish()
        return await self._judged(ruling, [*self._sentences.feed(ruling.text), *self._sentences.finish()])

    async def _judged(self, ruling: Ruling, ready: list[Sentence]) -> Ruling:
        released: list[str] = []
        verdicts: list[Verdict] = list(ruling.verdicts)
        for sentence in ready:
            outcome = await self._check(sentence.text)
            verdicts += [_placed(found.verdict, sentence.start) for found in outcome.findings]
            if outcome.blocked:
                return Ruling("".join(released), tuple(verdicts), blocked=True)
            released.append(outcome.text)
        return Ruling("".join(released), tuple(verdicts), ruling.blocked)


def _placed(verdict: Verdict, start: int) -> Verdict:
    """By its place in the text that the rules on characters let through, not in its sentence."""
    return verdict._replace(start=start + verdict.start, end=start + verdict.end)
