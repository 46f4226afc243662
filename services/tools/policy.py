"""What policy says of a tool's name and arguments, enforced in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.tools.errors import CallApprovalRequired, PolicyBlocked, PolicyUnavailable, ToolNotAllowed
from shared.monitors.arguments import Call, judge_arguments
from shared.monitors.decisions import Decided, Note, named, unnoted
from shared.monitors.enforced import Enforced
from shared.monitors.rules import Action, Bundle, Target, Verdict
from shared.monitors.stream import CompiledRules, compile_rules, judge
from shared.tool_permissions import refused


@dataclass(frozen=True, slots=True)
class Held:
    """The bundles that hold for an agent, and what of them reads arguments as text."""

    bundles: tuple[Bundle, ...]
    texts: CompiledRules

    @classmethod
    def of(cls, bundles: tuple[Bundle, ...]) -> Held:
        return cls(bundles, compile_rules(bundles, Target.TOOL_ARGUMENTS))


class Overrides(Protocol):
    """Tells what tokens excuse."""

    async def rules(self, call: Call, token: str, *, request_id: str) -> frozenset[str]:
        """The rules it excuses for this call of the caller's. Raises PolicyUnavailable, and policy's
        OVERRIDE_INVALID and OVERRIDE_EXPIRED.
        """


class ArgumentPolicy:
    """Judges calls by the last snapshot, which stays in force when policy is away."""

    def __init__(
        self, enforced: Enforced[Held], *, strict: bool, overrides: Overrides | None = None, note: Note = unnoted
    ) -> None:
        self._enforced = enforced
        self._overrides = overrides
        self._note = note
        self._strict = strict

    def permit(self, tenant: str, tool: str, *, agent: str, roles: frozenset[str]) -> None:
        """By who may call the tool at all, as policy was told. Raises ToolNotAllowed."""
        if why := refused(self._enforced.permissions(tenant), tool, roles=roles, agent=agent):
            raise ToolNotAllowed(why, agent=agent, tool=tool, roles=",".join(sorted(roles)))

    async def check(self, tenant: str, call: Call, *, override: str = "", request_id: str = "") -> None:
        """By what the call says and by conditions over its arguments, but for the rules that a token excuses. Raises
        PolicyBlocked, CallApprovalRequired, what Overrides raises, and PolicyUnavailable when a strict mesh has no
        policy yet.
        """
        excused = await self._excused(call, override, request_id)
        held = self._enforced.held(tenant, call.agent)
        if held is None:
            if self._strict:
                raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
            return
        text = f"{call.tool} {json.dumps(dict(call.arguments), ensure_ascii=False, sort_keys=True)}"
        ruling = judge(held.texts, Target.TOOL_ARGUMENTS, text, excused)
        verdicts = [*ruling.verdicts, *(_eased(one, excused) for one in judge_arguments(held.bundles, call))]
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
            raise _refusal(stopping, call)
        if stopped:
            raise PolicyUnavailable("a rule could not be judged and the policy is strict", dependency="policy")

    async def _excused(self, call: Call, token: str, request_id: str) -> frozenset[str]:
        if not token:
            return frozenset()
        if self._overrides is None:
            raise PolicyUnavailable("the override cannot be checked", dependency="policy")
        return await self._overrides.rules(call, token, request_id=request_id)


# Arguments cannot be shown with a part taken out: what would redact them stops the call.
_STOPPING: Final = frozenset({Action.BLOCK, Action.REDACT, Action.REQUIRE_APPROVAL})


def _eased(verdict: Verdict, excused: frozenset[str]) -> Verdict:
    return verdict._replace(action=Action.ALLOW) if verdict.rule.name in excused else verdict


def _refusal(stopping: Sequence[Verdict], call: Call) -> PolicyBlocked | CallApprovalRequired:
    """Leave helps only where no rule is against the call whatever anybody says."""
    final = [verdict for verdict in stopping if verdict.action is not Action.REQUIRE_APPROVAL]
    if final:
        rule, bundle = final[0].rule.name, final[0].bundle
        message = f"rule {rule} blocks calling {call.tool} with these arguments"
        return PolicyBlocked(message, rule=rule, bundle=bundle, tool=call.tool)
    rules, bundles = ", ".join(named(stopping)), ", ".join(sorted({verdict.bundle for verdict in stopping}))
    return CallApprovalRequired(
        f"calling {call.tool} with these arguments waits for approval, by {rules}: an operator makes an override for "
        "that with CreateOverride (POST /v1/overrides); make the same call with its token as override_token",
        rule=stopping[0].rule.name, rules=rules, bundle=stopping[0].bundle, bundles=bundles, tool=call.tool,
        agent=call.agent, session_id=call.session_id,
    )  # fmt: skip
