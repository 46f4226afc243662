"""What many ask for at once goes together, and nobody waits for company or pays for another's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from shared.batches import Batches, TenantBatches
from shared.errors import Unavailable
from shared.rpc import deadline


class Faulty(Exception):
    """What is wrong with one of a batch."""


@dataclass(slots=True)
class Statement:
    """Answers ten times what is asked; a 13 is a fault, -1 an outage. `held` keeps it at work until it is set."""

    carried: list[list[int]] = field(default_factory=list)
    held: asyncio.Event | None = None

    async def carry(self, batch: Sequence[int]) -> Sequence[int]:
        self.carried.append(list(batch))
        if self.held:
            await self.held.wait()
        if 13 in batch:
            raise Faulty
        if -1 in batch:
            raise Unavailable("the other side is away")
        return [asked * 10 for asked in batch]


async def test_what_is_asked_in_one_turn_of_the_loop_goes_together_in_its_order() -> None:
    statement = Statement()
    batches = Batches(statement.carry)
    assert await asyncio.gather(*(batches.ask(number) for number in (1, 2, 3))) == [10, 20, 30]
    assert await batches.ask(4) == 40
    assert statement.carried == [[1, 2, 3], [4]]


async def test_what_is_asked_while_one_is_at_work_goes_with_the_next() -> None:
    statement = Statement(held=asyncio.Event())
    batches = Batches(statement.carry, most=2)
    first = asyncio.create_task(batches.ask(1))
    while not statement.carried:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(batches.ask(number)) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    assert statement.held is not None
    statement.held.set()
    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40]
    assert statement.carried == [[1], [2, 3], [4]]


async def test_two_about_the_same_place_never_go_together_and_keep_their_order() -> None:
    statement = Statement()
    batches = Batches(statement.carry, place=lambda number: number % 10, at_once=2)
    assert await asyncio.gather(*(batches.ask(number) for number in (1, 11, 2, 21))) == [10, 110, 20, 210]
    assert statement.carried == [[1, 2], [11], [21]]


async def test_a_fault_is_told_to_whom_it_belongs_and_to_nobody_else() -> None:
    statement = Statement()
    batches = Batches(statement.carry, faults=(Faulty,))
    answers = await asyncio.gather(*(batches.ask(number) for number in (1, 13, 2)), return_exceptions=True)
    assert answers[0] == 10
    assert isinstance(answers[1], Faulty)
    assert answers[2] == 20


async def test_an_outage_is_told_to_all() -> None:
    batches = Batches(Statement().carry, faults=(Faulty,))
    answers = await asyncio.gather(*(batches.ask(number) for number in (1, -1)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    assert await batches.ask(2) == 20


async def test_who_gives_up_takes_nobody_along_and_what_was_not_begun_is_not_done() -> None:
    statement = Statement(held=asyncio.Event())
    batches = Batches(statement.carry)
    asked = [asyncio.create_task(batches.ask(number)) for number in (1, 2)]
    while not statement.carried:
        await asyncio.sleep(0)
    late = asyncio.create_task(batches.ask(3))
    await asyncio.sleep(0)
    asked[0].cancel()
    late.cancel()
    assert statement.held is not None
    statement.held.set()
    assert await asked[1] == 20
    with pytest.raises(asyncio.CancelledError):
        await late
    assert statement.carried == [[1, 2]]


async def test_whoever_asks_as_the_last_one_is_answered_is_answered_too() -> None:
    statement = Statement()
    batches = Batches(statement.carry)

    async def chain(number: int) -> int:
        for _ in range(50):
            number = await batches.ask(number) // 10
        return number

    async with asyncio.timeout(2):
        assert await asyncio.gather(*(chain(number) for number in (1, 2, 3))) == [1, 2, 3]


async def test_what_is_binding_is_carried_though_its_asker_is_gone() -> None:
    statement = Statement(held=asyncio.Event())
    batches = Batches(statement.carry, binding=True)
    first = asyncio.create_task(batches.ask(1))
    while not statement.carried:
        await asyncio.sleep(0)
    late = asyncio.create_task(batches.ask(2))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert late.cancelled()
    assert statement.held is not None
    statement.held.set()
    assert await first == 10
    while not batches.idle:
        await asyncio.sleep(0)
    assert statement.carried == [[1], [2]]


async def test_a_fault_of_ours_is_told_as_it_is_and_holds_nobody_up() -> None:
    class Broken(Exception):
        pass

    async def carry(batch: Sequence[int]) -> Sequence[int]:
        if 1 in batch:
            raise Broken
        return batch

    batches: Batches[int, int] = Batches(carry, most=1)
    async with asyncio.timeout(2):
        answers = await asyncio.gather(batches.ask(1), batches.ask(2), return_exceptions=True)
    assert isinstance(answers[0], Broken)
    assert answers[1] == 2


async def test_tenants_never_go_together_nor_wait_for_each_other() -> None:
    carried: list[tuple[str, list[int]]] = []
    held = asyncio.Event()

    async def carry(tenant: str, batch: Sequence[int]) -> Sequence[int]:
        carried.append((tenant, list(batch)))
        if tenant == "slow":
            await held.wait()
        return [asked * 10 for asked in batch]

    batches = TenantBatches(carry, most=8)
    slow = asyncio.create_task(batches.ask("slow", 1))
    assert await asyncio.gather(batches.ask("acme", 2), batches.ask("acme", 3)) == [20, 30]
    behind = asyncio.create_task(batches.ask("slow", 4))
    await asyncio.sleep(0)
    held.set()
    assert await asyncio.gather(slow, behind) == [10, 40]
    assert sorted(carried) == [("acme", [2, 3]), ("slow", [1]), ("slow", [4])]


async def test_no_deadline_of_the_first_asker_holds_for_all() -> None:
    left: list[float | None] = []

    async def carry(batch: Sequence[int]) -> Sequence[int]:
        left.append(deadline.remaining())
        return batch

    deadline._ends_at.set(asyncio.get_running_loop().time() + 5)
    await Batches(carry).ask(1)
    assert left == [None]
