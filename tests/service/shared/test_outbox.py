"""What is put into an outbox arrives, whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from shared.clock import FakeClock, SystemClock
from shared.errors import InvalidArgument, Unavailable
from shared.outbox import Outbox
from shared.tasks import stopped

NOW = timedelta()


def outbox(folder: Path, *, patience: timedelta = NOW) -> Outbox:
    return Outbox(folder / "usage", clock=SystemClock(), patience=patience)


async def delivered(box: Outbox, failures: list[Exception] | None = None) -> list[bytes]:
    """What arrives until nothing is left."""
    arrived: list[bytes] = []

    async def deliver(record: bytes) -> None:
        if failures:
            raise failures.pop(0)
        arrived.append(record)

    task = asyncio.create_task(box.run(deliver))
    async with asyncio.timeout(20):
        while len(box):
            await asyncio.sleep(0.01)
    await stopped(task)
    return arrived


async def test_records_arrive_in_order_and_the_file_is_empty_again(tmp_path: Path) -> None:
    with outbox(tmp_path) as box:
        for number in range(5):
            box.keep(b"record %d" % number)
        assert await delivered(box) == [b"record %d" % number for number in range(5)]
    assert (tmp_path / "usage").stat().st_size == 0


async def test_what_the_sender_delivered_itself_is_not_delivered_again(tmp_path: Path) -> None:
    with outbox(tmp_path) as box:
        numbers = [box.keep(b"%d" % number) for number in range(3)]
        box.done(numbers[1])
        box.done(numbers[1])
        assert await delivered(box) == [b"0", b"2"]


async def test_an_outbox_is_patient_with_the_sender(tmp_path: Path) -> None:
    clock = FakeClock()
    with Outbox(tmp_path / "usage", clock=clock, patience=timedelta(seconds=5)) as box:
        box.keep(b"mine")
        task = asyncio.create_task(box.run(lambda _: asyncio.sleep(0)))
        await asyncio.sleep(0.3)
        assert len(box) == 1
        await stopped(task)


async def test_a_receiver_that_is_away_gets_them_when_it_is_back(tmp_path: Path) -> None:
    with outbox(tmp_path) as box:
        box.keep(b"a")
        box.keep(b"b")
        away: list[Exception] = [Unavailable("away"), Unavailable("away")]
        assert await delivered(box, away) == [b"a", b"b"]


async def test_a_record_that_is_refused_for_good_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with outbox(tmp_path) as box:
        box.keep(b"bad")
        box.keep(b"good")
        assert await delivered(box, [InvalidArgument("never")]) == [b"good"]


async def test_what_a_killed_process_kept_is_delivered_by_the_next(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom datetime import timedelta\nfrom pathlib import Path\n"
        "from shared.clock import SystemClock\nfrom shared.outbox import Outbox\n"
        "box = Outbox(Path(sys.argv[1]), clock=SystemClock(), patience=timedelta()).__enter__()\n"
        "numbers = [box.keep(b'%d' % number) for number in range(4)]\nbox.done(numbers[0])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run((sys.executable, "-c", program, str(tmp_path / "usage")), check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    with outbox(tmp_path) as box:
        assert await delivered(box) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("cut", range(1, 22))
async def test_a_record_cut_short_was_never_kept(tmp_path: Path, cut: int) -> None:
    with outbox(tmp_path) as box:
        box.keep(b"whole")
        box.keep(b"torn")
    file = tmp_path / "usage"
    file.write_bytes(file.read_bytes()[:-cut] if cut < 21 else file.read_bytes()[:-4] + b"TORN")
    with outbox(tmp_path) as box:
        box.keep(b"next")
        assert await delivered(box) == [b"whole", b"next"]
