"""What an enforcement point tells policy: batches, bounds, what is dropped, and the flush at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from shared.clock import FakeClock
from shared.errors import InvalidArgument, Unavailable
from shared.ids import SequentialIds
from shared.monitors import decisions as module
from shared.monitors.decisions import LONGEST, Decided, Decisions, Heard, Room
from shared.monitors.rules import Action, Rule, RuleType, Severity, Target, Verdict
from shared.monitors.stream import Ruling
from shared.tasks import supervised

SOON = Room(decisions=5, characters=100, gather=timedelta(milliseconds=1), grace=timedelta(milliseconds=50))
MAIL = Rule("mail", RuleType.KEYWORD, Severity.MAJOR, keywords=("mail",))


def said(text: str, name: str = "", **more: object) -> Decided:
    return Decided(Target.OUTPUT, text, allowed=True, unchanged=True, id=name, **more)  # type: ignore[arg-type]


class Policy:
    """Hears what is told, unless it is away, refuses, or never answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, list[Decided]]] = []
        self.fault: Exception | None = None
        self.silent = False

    async def send(self, tenant: str, decided: Sequence[Decided]) -> None:
        if self.silent:
            await asyncio.Event().wait()
        if self.fault:
            raise self.fault
        self.heard.append((tenant, list(decided)))

    @property
    def texts(self) -> list[str]:
        return [one.text for _, batch in self.heard for one in batch]


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many decisions ended how."""
    found: dict[str, int] = {}

    class Counter:
        def add(self, count: int, labels: dict[str, str]) -> None:
            found[labels["outcome"]] = found.get(labels["outcome"], 0) + count

    monkeypatch.setattr(module, "_told", Counter())
    return found


def of(policy: Policy, share: float = 1.0, room: Room = SOON) -> Decisions:
    return Decisions(lambda _: share, policy.send, clock=FakeClock(), ids=SequentialIds(), room=room)


async def test_what_is_decided_goes_together_by_tenant_in_its_order(policy: Policy) -> None:
    decisions = of(policy)
    for tenant, text in (("acme", "a"), ("globex", "b"), ("acme", "c")):
        decisions.note(tenant, said(text))
    await decisions.flush()
    assert [(tenant, [one.text for one in batch]) for tenant, batch in policy.heard] == [
        ("acme", ["a", "c"]), ("globex", ["b"]),
    ]  # fmt: skip
    assert [one.id for _, batch in policy.heard for one in batch] == ["dec_1", "dec_3", "dec_2"]


async def test_one_message_holds_so_many_and_so_much(policy: Policy) -> None:
    decisions = of(policy, room=Room())
    for text in ["x"] * 101 + ["y" * LONGEST] * 9:
        decisions.note("acme", said(text))
    await decisions.flush()
    assert [len(batch) for _, batch in policy.heard] == [100, 8, 2]


@pytest.mark.parametrize(("texts", "left"), [(list("abcdefg"), list("cdefg")), (["a" * 60, "b" * 60], ["b" * 60])])
async def test_what_does_not_fit_drops_the_oldest_and_is_counted(
    policy: Policy, counted: dict[str, int], texts: list[str], left: list[str]
) -> None:
    decisions = of(policy)
    for text in texts:
        decisions.note("acme", said(text))
    await decisions.flush()
    assert policy.texts == left
    assert counted == {"dropped": len(texts) - len(left), "reported": len(left)}


async def test_what_policy_could_not_hear_is_told_when_it_is_back(policy: Policy, counted: dict[str, int]) -> None:
    decisions, policy.fault = of(policy), Unavailable("policy is away")
    async with supervised("decisions", decisions.run):
        for text in "abcdef":
            decisions.note("acme", said(text))
        await asyncio.sleep(0.02)
        decisions.note("acme", said("g"))
        policy.fault = None
        async with asyncio.timeout(2):
            while not policy.heard:
                await asyncio.sleep(0.01)
    assert policy.texts == list("cdefg")
    assert counted == {"dropped": 2, "reported": 5}


async def test_what_policy_refuses_stands_in_nobody_s_way(policy: Policy, counted: dict[str, int]) -> None:
    decisions, policy.fault = of(policy), InvalidArgument("no")
    decisions.note("acme", said("a"))
    await decisions.flush()
    policy.fault = None
    decisions.note("acme", said("b"))
    await decisions.flush()
    assert (policy.texts, counted) == (["b"], {"refused": 1, "reported": 1})


async def test_a_flush_ends_though_policy_never_answers(policy: Policy, counted: dict[str, int]) -> None:
    decisions, policy.silent = of(policy), True
    decisions.note("acme", said("a"))
    async with asyncio.timeout(1):
        await decisions.flush()
    assert counted == {"dropped": 1}


async def test_whole_sessions_are_wanted_in_about_the_share_asked_for(policy: Policy) -> None:
    decisions = of(policy, share=0.2)
    wanted = [decisions.wants("acme", f"ses_{number}") for number in range(2_000)]
    assert 300 < sum(wanted) < 500
    assert [decisions.wants("acme", f"ses_{number}") for number in range(2_000)] == wanted
    unwanted = of(policy, share=0.0)
    unwanted.note("acme", said("a"))
    await unwanted.flush()
    assert policy.heard == []


@pytest.mark.parametrize(("target", "kept"), [(Target.OUTPUT, "<"), (Target.PROMPT, ">")])
async def test_a_long_text_is_cut_and_says_so(policy: Policy, target: Target, kept: str) -> None:
    decisions = of(policy, room=Room())
    long = Decided(target, "<" * LONGEST + ">" * LONGEST, True, True, tool="add", arguments={"a": 1})
    decisions.note("acme", long)
    decisions.note("acme", said("nul \x00"))
    await decisions.flush()
    cut, nul = policy.heard[0][1]
    assert (cut.text, cut.truncated, cut.tool, cut.arguments) == (kept * LONGEST, True, "", {})
    assert (nul.text, nul.truncated) == ("nul \ufffd", False)


def test_what_flows_is_heard_to_its_end_but_kept_only_so_far() -> None:
    heard = Heard(Target.OUTPUT)
    redacted = Verdict(MAIL, "default@1.0.0", Action.REDACT, Target.OUTPUT, 0, 4)
    heard.saw("x" * LONGEST, Ruling("x"))
    assert (heard.decided().truncated, heard.decided().unchanged) == (False, True)
    heard.saw("y", Ruling("", (redacted, redacted)))
    heard.saw("z", Ruling("", (), blocked=True))
    told = heard.decided()
    assert (told.text, told.truncated, told.rules) == ("x" * LONGEST, True, ("mail",))
    assert (told.allowed, told.unchanged) == (False, False)
