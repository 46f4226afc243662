"""What policy says of a tool's name and arguments, enforced in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from services.tools.errors import PolicyBlocked, PolicyUnavailable
from shared.monitors.arguments import Call, judge_arguments
from shared.monitors.decisions import Decided, Note, named, unnoted
from shared.monitors.enforced import Enforced
from shared.monitors.rules import Action, Bundle, Target, Verdict
from shared.monitors.stream import CompiledRules, compile_rules, judge


@dataclass(frozen=True, slots=True)
class Held:
    """The bundles that hold for an agent, and what of them reads arguments as text."""

    bundles: tuple[Bundle, ...]
    texts: CompiledRules

    @classmethod
    def of(cls, bundles: tuple[Bundle, ...]) -> Held:
        return cls(bundles, compile_rules(bundles, Target.TOOL_ARGUMENTS))


class ArgumentPolicy:
    """Judges calls by the last snapshot, which stays in force when policy is away."""

    def __init__(self, enforced: Enforced[Held], *, strict: bool, note: Note = unnoted) -> None:
        self._enforced = enforced
        self._note = note
        self._strict = strict

    def check(self, tenant: str, call: Call) -> None:
        """By what the call says and by conditions over its arguments. Raises PolicyBlocked, and PolicyUnavailable when
        a strict mesh has no policy yet.
        """
        held = self._enforced.held(tenant, call.agent)
        if held is None:
            if self._strict:
                raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
            return
        text = f"{call.tool} {json.dumps(dict(call.arguments), ensure_ascii=False, sort_keys=True)}"
        ruling = judge(held.texts, Target.TOOL_ARGUMENTS, text)
        verdicts = [*ruling.verdicts, *judge_arguments(held.bundles, call)]
        stopping = [verdict for verdict in verdicts if verdict.action in _STOPPING]
        stopped = ruling.blocked or bool(stopping)
        self._note(
            tenant,
            Decided(
                Target.TOOL_ARGUMENTS, text, not stopped, not stopped, named(verdicts),
                tuple(bundle.label for bundle in held.bundles), call.agent, call.session_id, call.tool, call.arguments,
                verdicts=tuple(verdicts),
            ),
        )  # fmt: skip
        if stopping:
            raise _blocked(stopping[0], call)
        if stopped:
            raise PolicyUnavailable("a rule could not be judged and the policy is strict", dependency="policy")


# Arguments cannot be shown with a part taken out: what would redact them stops the call.
_STOPPING: Final = frozenset({Action.BLOCK, Action.REDACT, Action.REQUIRE_APPROVAL})


def _blocked(verdict: Verdict, call: Call) -> PolicyBlocked:
    return PolicyBlocked(
        f"rule {verdict.rule.name} blocks calling {call.tool} with these arguments",
        rule=verdict.rule.name,
        bundle=verdict.bundle,
        tool=call.tool,
    )
