"""Ports of a mesh on one machine with others."""

from __future__ import annotations

import socket

import pytest

from deploy.local.state import DEFAULT_PORTS, reserved_ports


def test_two_meshes_that_start_at_once_choose_no_port_twice() -> None:
    with reserved_ports() as first, reserved_ports() as second:
        assert len({*first.values(), *second.values()}) == 2 * len(DEFAULT_PORTS)
        held = dict(first)
    with reserved_ports() as again:
        assert sum(again[name] == held[name] for name in held) >= sum(
            held[name] == DEFAULT_PORTS[name] for name in held
        )


def test_what_another_program_has_is_not_chosen_and_the_edges_is_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setitem(DEFAULT_PORTS, "policy", port)
        monkeypatch.setenv("AGENTNET_EDGE_PORT", "18080")
        with reserved_ports() as ports:
            assert ports["policy"] != port
            assert ports["edge"] == 18080
