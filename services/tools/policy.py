"""What policy says of a tool's name and arguments, enforced in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from services.tools.errors import PolicyBlocked, PolicyUnavailable
from shared.monitors.enforced import Enforced
from shared.monitors.rules import Target
from shared.monitors.stream import judge


class ArgumentPolicy:
    """Judges calls by the last snapshot, which stays in force when policy is away."""

    def __init__(self, enforced: Enforced, *, strict: bool) -> None:
        self._enforced = enforced
        self._strict = strict

    def check(self, tenant: str, agent: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Raises PolicyBlocked, and PolicyUnavailable when a strict mesh has no policy yet."""
        rules = self._enforced.rules(tenant, agent, Target.TOOL_ARGUMENTS)
        if rules is None:
            if self._strict:
                raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
            return
        text = f"{tool} {json.dumps(dict(arguments), ensure_ascii=False, sort_keys=True)}"
        ruling = judge(rules, Target.TOOL_ARGUMENTS, text)
        if ruling.blocked:
            verdict = ruling.verdicts[-1]
            raise PolicyBlocked(
                f"rule {verdict.rule.name} blocks calling {tool} with these arguments",
                rule=verdict.rule.name, bundle=verdict.bundle, tool=tool,
            )  # fmt: skip
