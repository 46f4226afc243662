"""A call takes its steps in the order of the founding document: select, validate (rate, auth), execute, cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.tools.answer import Outcome, Printed, Status
from services.tools.executor import Isolation, Work
from services.tools.flow import Flow, Request
from services.tools.permissions import ToolAuthorizer, ToolPermission
from services.tools.registry import Registry
from services.tools.store import Tool
from services.tools.store_memory import MemoryToolStore
from shared.clock import FakeClock
from shared.identity import Principal
from shared.ids import SequentialIds
from shared.monitors.arguments import Call

ADDER = Tool(
    name="adder", version="1.0.0", description="", input_schema={"type": "object"}, output_schema=None,
    rate_limit_per_min=5, exec_mode="python", auth=None, allowed_agents=("Athena",), function=None, idempotent=True,
    created_at=datetime(2026, 1, 1, tzinfo=UTC), cache_ttl=timedelta(minutes=1),
)  # fmt: skip
ADA = Principal("acme", "ada", frozenset({"admin"}))


class Steps(ToolAuthorizer):
    """Every part that a call meets, which writes down that it did."""

    isolation = Isolation.NAMESPACES
    reaches_out = False

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []

    def authorize(self, caller: Principal, tool: Tool, *, agent: str) -> ToolPermission:
        self.taken.append(f"authorise {tool.version}")
        return super().authorize(caller, tool, agent=agent)

    def permit(self, tenant: str, tool: str, *, agent: str, roles: frozenset[str]) -> None:
        self.taken.append(f"permit {agent}")

    async def take(self, limits: Mapping[str, int]) -> timedelta | None:
        self.taken.append(f"rate {limits['acme/adder']}")
        return None

    async def check(self, tenant: str, call: Call, *, override: str = "", request_id: str = "") -> None:
        self.taken.append(f"policy {dict(call.arguments)}")

    def check_room(self) -> None: ...

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        self.taken.append("execute")
        return Outcome(Status.OK, result=len(self.taken))


async def test_a_call_is_selected_validated_executed_and_cached_in_this_order() -> None:
    steps, store, clock, ids = Steps(), MemoryToolStore(), FakeClock(), SequentialIds()
    registry = Registry(store, authorizer=steps, clock=clock, ids=ids)
    flow = Flow(store, {"python": steps}, authorizer=steps, rates=steps, policy=steps, clock=clock, ids=ids)
    for version in ("1.0.0", "1.1.0"):
        await registry.register(ADA, replace(ADDER, version=version))
    outcomes = []
    for _ in range(2):
        tool = await registry.select("acme", "adder", "", agent="Athena")
        request = Request(tool, {"a": 1}, agent="Athena")
        await flow.admit(ADA, request)
        outcomes.append(await flow.run(ADA, request, flow.new_invocation(), lambda *_: None))
    checked = ["authorise 1.1.0", "permit Athena", "rate 5", "policy {'a': 1}"]
    assert steps.taken == [*checked, "execute", *checked]
    assert [outcome.result for outcome in outcomes] == [5, 5]
    assert [outcome.cached for outcome in outcomes] == [False, True]
    assert [one.status for one in await store.invocations("acme", "adder@1.1.0")] == ["CACHED", "OK"]
