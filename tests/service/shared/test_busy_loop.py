"""A loop with too much to do still lets gRPC accept and send: what happens in a turn is handled in a turn."""

from __future__ import annotations

import subprocess
import sys

from shared.rpc.wakeups import pair

STREAMS, MESSAGES = 400, 5


def test_streams_of_a_busy_server_take_few_turns_of_its_loop() -> None:
    command = (sys.executable, "-m", "tests.support.busy_loop", str(STREAMS), str(MESSAGES))
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(said.stdout) < STREAMS  # one thing a turn would be five times as many


def test_waking_never_waits_for_the_one_who_sleeps() -> None:
    reading, writing = pair()
    with reading, writing:
        woken = 0
        try:
            while True:
                woken += writing.send(b"1")
        except BlockingIOError:
            pass
        assert len(reading.recv(1)) == woken
