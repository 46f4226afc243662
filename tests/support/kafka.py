"""A real Kafka broker for tests, from Maven's packages: started, stopped as by kill -9, started again on its data."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from tests.support.valkey import free_port

_POM = Path(__file__).with_name("kafka.pom.xml")
_LIBRARIES = Path(__file__).resolve().parents[2] / ".agentnet" / "kafka"
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"


class Broker:
    """One broker that is its own controller."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, controller = free_port(), free_port()
        self._settings = folder / "server.properties"
        self._settings.write_text(
            "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\nlog.dirs={folder / 'data'}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{controller}\n"
            "offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n"
            "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
            "group.initial.rebalance.delay.ms=0\n"
        )
        self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(self._settings)).wait(timeout=120)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when it takes connections."""
        self._process = self._java("kafka.Kafka", str(self._settings))
        ends = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if time.monotonic() > ends or self._process.poll() is not None:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def _java(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / "broker.log").open("ab") as log:
            return subprocess.Popen(
                ("java", "-Xmx256m", "-cp", f"{_LIBRARIES}/*", *command), stdout=log, stderr=log, cwd=self._folder
            )


def install() -> None:
    """Fetches the broker once, by Maven as the machine has it set up. Raises CalledProcessError."""
    if not any(_LIBRARIES.glob("kafka_*.jar")):
        goal = ("dependency:copy-dependencies", f"-DoutputDirectory={_LIBRARIES}")
        subprocess.run(("mvn", "-q", "-B", "-f", str(_POM), *goal), check=True)
