"""Tools ask policy about the name and the arguments of every call, by the bundles in force."""

from __future__ import annotations

from typing import Any

import pytest

from services.tools import policy as module
from services.tools.errors import PolicyUnavailable, ToolNotAllowed
from services.tools.policy import ArgumentPolicy, Held
from shared.monitors.arguments import Call
from shared.monitors.decisions import Decided
from shared.monitors.stream import Ruling
from tests.service.tools.calls import Code, invocation, refusal, register, said, tool
from tests.support.identity import Keys
from tests.support.published import enforcing, unheard

ECHO = "def adder(**given): return 'done'\n"
NO_BOMBS = {"name": "no_bombs", "type": "keyword", "severity": "SEVERITY_SEVERE", "keywords": ["bomb"]}
BIG = {
    "name": "big_payments",
    "type": "tool_arguments",
    "severity": "SEVERITY_SEVERE",
    "params": {"tool": "add*", "when": 'args.amount > 100 && !(agent in ["Midas"])'},
}
WARNS = {**BIG, "name": "watched", "action": "RULE_ACTION_WARN", "params": {"when": "true"}}
OF_ATHENA = {**BIG, "name": "athena_pays_nothing", "params": {"when": "args.amount > 0"}}


def call(stub: Any, keys: Keys, agent: str = "Athena", **arguments: Any) -> Any:
    return stub.InvokeTool(invocation("adder", arguments, agent=agent), metadata=keys.metadata())


async def blocked(stub: Any, keys: Keys, agent: str = "Athena", **arguments: Any) -> str:
    error = await refusal(call(stub, keys, agent, **arguments))
    assert said(error) == (Code.FAILED_PRECONDITION, "POLICY_BLOCKED")
    return str(error.facts["rule"])


class TestRules:
    """With two rules for all and one for one agent."""

    @pytest.fixture
    async def policy(self) -> ArgumentPolicy:
        return ArgumentPolicy(
            await enforcing(Held.of, NO_BOMBS, WARNS, BIG, attached=[OF_ATHENA], agent="Athena"), strict=True
        )

    async def test_what_the_arguments_say_is_judged(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(ECHO, allowed_agents=["*"]))
        assert await blocked(stub, keys, what="a bomb", amount=0) == "no_bombs"
        assert (await call(stub, keys, what="a rose", amount=0)).finished.result.string_value == "done"

    async def test_conditions_over_the_arguments_are_judged(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(ECHO, allowed_agents=["*"]))
        assert await blocked(stub, keys, "Apollo", amount=101) == "big_payments"
        assert (await call(stub, keys, "Apollo", amount=100)).finished.result.string_value == "done"
        assert (await call(stub, keys, "Midas", amount=1_000)).finished.result.string_value == "done"

    async def test_a_condition_that_cannot_be_judged_blocks(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(ECHO, allowed_agents=["*"]))
        assert await blocked(stub, keys, "Apollo", amount="many") == "big_payments"

    async def test_what_is_attached_to_an_agent_holds_for_it_alone(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(ECHO, allowed_agents=["*"]))
        assert await blocked(stub, keys, "Athena", amount=1) == "athena_pays_nothing"
        assert (await call(stub, keys, "Apollo", amount=1)).finished.result.string_value == "done"


class TestPermissions:
    """Who may call a tool, as policy publishes it for the tenant."""

    @pytest.fixture
    async def policy(self) -> ArgumentPolicy:
        permissions = [{"tool": "add*", "agents": ["Midas"]}, {"tool": "other", "roles": ["viewer"]}]
        return ArgumentPolicy(await enforcing(Held.of, tenant="acme", permissions=permissions), strict=True)

    async def test_others_are_refused_and_told_why(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(ECHO, allowed_agents=["*"]))
        error = await refusal(call(stub, keys, "Athena"))
        assert said(error) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")
        assert error.message == "add* is not for the agent Athena"
        assert (await call(stub, keys, "Midas")).finished.result.string_value == "done"

    async def test_roles_narrow_and_tools_of_other_names_stay_open(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(ECHO.replace("adder", "other"), name="other", allowed_agents=["*"]))
        await register(stub, keys, tool(ECHO.replace("adder", "free"), name="free", allowed_agents=["*"]))
        for name, allowed in (("other", False), ("free", True)):
            made = stub.InvokeTool(invocation(name, {}, agent="Midas"), metadata=keys.metadata())
            if allowed:
                assert (await made).finished.result.string_value == "done"
            else:
                assert (await refusal(made)).message == "other is for viewer only"


async def test_a_permission_of_policy_s_holds_for_its_tenant_and_every_version_of_an_agent() -> None:
    permissions = [{"tool": "pay*", "roles": ["agent"], "agents": ["Midas"]}]
    policy = ArgumentPolicy(await enforcing(Held.of, tenant="acme", permissions=permissions), strict=True)
    policy.permit("acme", "pay_bill", agent="Midas@2.0.0", roles=frozenset({"agent"}))
    policy.permit("globex", "pay_bill", agent="Athena", roles=frozenset({"agent"}))
    for agent, role in (("Athena", "agent"), ("Midas", "admin"), ("", "agent")):
        with pytest.raises(ToolNotAllowed):
            policy.permit("acme", "pay_bill", agent=agent, roles=frozenset({role}))


class TestNoPolicyYet:
    @pytest.fixture
    def policy(self) -> ArgumentPolicy:
        return ArgumentPolicy(unheard(Held.of), strict=True)

    async def test_a_strict_mesh_refuses(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool())
        error = await refusal(call(stub, keys, a=1, b=2))
        assert said(error) == (Code.UNAVAILABLE, "POLICY_UNAVAILABLE")


class TestPermissive:
    @pytest.fixture
    def policy(self) -> ArgumentPolicy:
        return ArgumentPolicy(unheard(Held.of), strict=False)

    async def test_a_mesh_that_is_not_strict_goes_on(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool())
        assert (await call(stub, keys, a=1, b=2)).finished.result.number_value == 3


class TestTold:
    """What is decided of a call is told to policy; what a rule would take out of arguments stops the call."""

    @pytest.fixture
    def told(self) -> list[tuple[str, Decided]]:
        return []

    @pytest.fixture
    async def policy(self, told: list[tuple[str, Decided]]) -> ArgumentPolicy:
        rules = (
            NO_BOMBS,
            WARNS,
            BIG,
            {**NO_BOMBS, "name": "hide", "action": "RULE_ACTION_REDACT", "keywords": ["rose"]},
        )
        return ArgumentPolicy(
            await enforcing(Held.of, *rules), strict=True, note=lambda tenant, one: told.append((tenant, one))
        )

    async def test_every_call_is_told_with_its_arguments_and_how_it_ended(
        self, stub: Any, keys: Keys, told: list[tuple[str, Decided]]
    ) -> None:
        await register(stub, keys, tool(ECHO, allowed_agents=["*"]))
        await call(stub, keys, what="tea", amount=1)
        await blocked(stub, keys, what="a bomb", amount=101)
        assert [tenant for tenant, _ in told] == ["acme", "acme"]
        passed, stopped = (one for _, one in told)
        assert (passed.allowed, passed.rules, passed.tool, passed.agent) == (True, ("watched",), "adder", "Athena")
        assert (passed.text, dict(passed.arguments)) == (
            'adder {"amount": 1, "what": "tea"}', {"amount": 1, "what": "tea"},
        )  # fmt: skip
        assert (stopped.allowed, stopped.unchanged, stopped.bundles) == (False, False, ("default@1.0.0",))
        assert stopped.rules == ("no_bombs", "watched", "big_payments")

    async def test_a_text_rule_that_would_redact_arguments_stops_the_call(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(ECHO, allowed_agents=["*"]))
        assert await blocked(stub, keys, what="a rose", amount=0) == "hide"


async def test_a_ruling_that_stops_without_a_verdict_says_that_policy_cannot_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = ArgumentPolicy(await enforcing(Held.of, NO_BOMBS), strict=True)
    monkeypatch.setattr(module, "judge", lambda *_: Ruling("", (), blocked=True))
    with pytest.raises(PolicyUnavailable):
        await policy.check("acme", Call("adder", {}, "Athena"))
