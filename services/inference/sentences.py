"""Rules that read whole sentences: policy is asked about each sentence when it has ended, before anyone is shown it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.inference.errors import PolicyUnavailable
from services.inference.peers import Payer, PolicyPeer
from shared.errors import MeshError
from shared.log import log
from shared.monitors.finished import Tally
from shared.monitors.pipeline import ERROR, STOPS, Outcome
from shared.monitors.rules import WINDOWED, Bundle, Mode, Target


def with_sentence_rules(bundles: Sequence[Bundle], target: Target) -> tuple[Bundle, ...]:
    """Those that have a rule for sentences of the target."""
    return tuple(
        bundle
        for bundle in bundles
        if any(rule.type in WINDOWED and rule.target in (None, target) for rule in bundle.rules)
    )


@dataclass(frozen=True, slots=True)
class SentenceRules:
    """The rules of one generation for one kind of text."""

    policy: PolicyPeer
    payer: Payer
    bundles: tuple[Bundle, ...]
    target: Target
    override: str = ""
    tally: Tally = field(default_factory=Tally)

    async def judge(self, text: str) -> Outcome:
        """What policy makes of the text. When it does not answer, or a rule's own model or plug-in cannot judge, strict
        bundles let nothing pass: raises PolicyUnavailable.
        """
        try:
            outcome = await self.policy.check(self.payer, text, self.target, self.bundles, override=self.override)
        except MeshError as error:
            if any(bundle.mode is Mode.STRICT for bundle in self.bundles):
                problem = "sentences cannot be judged and the policy is strict"
                raise PolicyUnavailable(problem, dependency="policy", why=error.reason_name) from error
            log.warning("sentence.not_judged", generation_id=self.payer.generation_id, error=error.message)
            return Outcome(text)
        if outcome.blocked and not any(one.verdict.action in STOPS for one in outcome.findings):
            raise _unjudged(outcome)
        self.tally.reported(outcome.reports)
        return outcome


def _unjudged(outcome: Outcome) -> PolicyUnavailable:
    """Names the rule, and says what kept it from judging."""
    failed = next((one for one in outcome.reports if one.status == ERROR), None)
    rule, why = (f"rule {failed.name}", failed.problem) if failed else ("a rule", "")
    return PolicyUnavailable(f"{rule} could not be judged and the policy is strict", dependency="policy", why=why)
