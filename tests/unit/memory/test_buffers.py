"""What the embedded Postgres keeps in memory of the graphs that memory searches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.local.postgres import Cluster
from deploy.local.state import State


@pytest.mark.parametrize(
    ("machine", "chosen", "buffers"),
    [(512 * 2**20, "", "64MB"), (16 * 2**30, "", "1024MB"), (2**40, "", "2048MB"), (2**40, "128MB", "128MB")],
)
def test_the_buffers_are_a_part_of_the_machine_or_as_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: int, chosen: str, buffers: str
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": machine // 4096}.__getitem__)
    monkeypatch.setenv("AGENTNET_POSTGRES_BUFFERS", chosen)
    assert f"shared_buffers={buffers}" in Cluster(State(tmp_path), port=1).command()
