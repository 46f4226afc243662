"""Who may call a tool."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.tools.errors import ToolNotAllowed
from services.tools.permissions import Role, ToolAuthorizer, roles_of
from services.tools.settings import ToolsSettings
from services.tools.store import Tool
from shared.identity import Principal

SEARCH = Tool(
    name="search", version="1.0.0", description="", input_schema={}, output_schema=None, rate_limit_per_min=30,
    exec_mode="external_api", auth=None, allowed_agents=("Athena", "Apollo"), function=None, idempotent=False,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
ADA = Principal("acme", "ada", frozenset({"admin"}))


def test_the_roles_are_those_of_the_seed() -> None:
    assert {role.value for role in Role} == {"viewer", "agent", "admin", "batch_processor"}


@pytest.mark.parametrize(
    ("platform", "agent", "role"),
    [("admin", "", "admin"), ("operator", "", "admin"), ("auditor", "", "viewer"), ("tenant_user", "", "viewer"),
     ("batch_processor", "", "batch_processor"), ("admin", "Athena", "agent")],
)  # fmt: skip
def test_what_a_caller_is(platform: str, agent: str, role: str) -> None:
    assert roles_of(Principal("acme", "ada", frozenset({platform})), agent) == {Role(role)}


def test_without_a_file_the_tool_decides() -> None:
    permission = ToolAuthorizer().permission(SEARCH)
    assert permission.allowed_roles == {Role.AGENT, Role.ADMIN}
    assert permission.allowed_agents == {"Athena", "Apollo"}
    assert (permission.rate_limit_per_min, permission.user_rate_limit_per_min) == (30, 0)


NARROWED: list[tuple[dict[str, Any], tuple[str, ...], set[str]]] = [
    ({"allowed_agents": ["Athena", "Zeus"]}, ("Athena", "Apollo"), {"Athena"}),
    ({"allowed_agents": ["*"]}, ("Athena", "Apollo"), {"Athena", "Apollo"}),
    ({"allowed_agents": ["Zeus"]}, ("*",), {"Zeus"}),
    ({"allowed_agents": []}, ("*",), set()),
]


@pytest.mark.parametrize(("narrowed", "registered", "left"), NARROWED)
def test_the_file_takes_agents_away_and_gives_none(
    narrowed: dict[str, Any], registered: tuple[str, ...], left: set[str]
) -> None:
    tool = replace(SEARCH, allowed_agents=registered)
    assert ToolAuthorizer({"search": narrowed}).permission(tool).allowed_agents == left


def test_the_file_takes_roles_away_and_the_lower_limit_counts() -> None:
    narrowed = {"allowed_roles": ["agent", "viewer"], "rate_limit_per_min": 50, "user_rate_limit_per_min": 5}
    permission = ToolAuthorizer({"search": narrowed}).permission(SEARCH)
    assert permission.allowed_roles == {Role.AGENT}
    assert (permission.rate_limit_per_min, permission.user_rate_limit_per_min) == (30, 5)


def test_it_is_enforced_at_the_call() -> None:
    authorizer = ToolAuthorizer({"search": {"allowed_roles": ["agent"], "allowed_agents": ["Athena"]}})
    assert authorizer.authorize(ADA, SEARCH, agent="Athena@2.0.0").admits("Athena")
    for agent in ("Apollo", ""):
        with pytest.raises(ToolNotAllowed) as raised:
            authorizer.authorize(ADA, SEARCH, agent=agent)
        assert raised.value.facts["tool"] == "search"


def test_a_file_is_read_and_the_one_that_ships_takes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "permissions.yaml"
    file.write_text("tools:\n  search: {allowed_agents: [Athena], rate_limit_per_min: 10}\n")
    assert ToolAuthorizer.from_file(file).permission(SEARCH).allowed_agents == {"Athena"}
    shipped = ToolsSettings.model_fields["permissions"].default
    assert ToolAuthorizer.from_file(shipped).permission(SEARCH) == ToolAuthorizer().permission(SEARCH)


@pytest.mark.parametrize("wrong", [{"allowed_roles": ["emperor"]}, {"rate": 1}, {"rate_limit_per_min": -1}])
def test_a_file_at_fault_stops_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ToolAuthorizer({"search": wrong})
