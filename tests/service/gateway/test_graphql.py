"""GraphQL reads what REST reads, for whom it may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.support.edge import Answer, Edge, running_edge
from tests.support.scripted_orchestrator import serve_orchestrator

pytestmark = pytest.mark.asyncio(loop_scope="module")


def serve(server: grpc.aio.Server) -> None:
    serve_orchestrator(server)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    limits = {"method:KeyService/ListKeys": {"per_second": 0.01, "burst": 1}}
    async with running_edge(tmp_path_factory.mktemp("graph"), serve=serve, limits=limits) as running:
        yield running


async def ask(edge: Edge, query: str, *roles: str, **more: Any) -> Answer:
    return await edge.bearer("POST", "/graphql", edge.token(*roles), {"query": query, **more})


async def test_one_question_reads_from_several_services(edge: Edge) -> None:
    started = await edge.ok(
        "POST", "/v1/sessions", edge.token(), {"topic": "Say.", "mode": "single", "agents": ["Athena"]}
    )
    query = """
      query Both($id: String!) {
        listAgents(pageSize: 5) { agents { ...Named createTime } nextPageToken }
        mine: getSession(sessionId: $id) { session { id agents usage { inputTokens } metadata } }
        getCaller { principal { tenantId subject roles } }
      }
      fragment Named on OrchestratorAgent { name version }
    """
    answer = await ask(edge, query, variables={"id": started["session"]["id"]})
    assert answer.status == 200, answer.text
    data = answer.body["data"]
    assert data["listAgents"]["agents"] == [
        {"name": "Athena", "version": "1.0.0", "createTime": "2027-01-15T08:00:00Z"}
    ]
    assert data["mine"]["session"]["id"] == started["session"]["id"]
    assert data["getCaller"]["principal"] == {"tenantId": "acme", "subject": "ada", "roles": ["admin"]}


async def test_each_field_needs_its_methods_permission_and_fails_by_itself(edge: Edge) -> None:
    answer = await ask(edge, "{ listAgents { agents { name } } listKeys { keys { id } } }", "tenant_user")
    assert answer.status == 200
    assert answer.body["data"] == {"listAgents": {"agents": [{"name": "Athena"}]}, "listKeys": None}
    (error,) = answer.body["errors"]
    assert (error["path"], error["extensions"]["reason"]) == (["listKeys"], "ROLE_INSUFFICIENT")
    assert (await edge.rest("POST", "/graphql", {"query": "{ listAgents { agents { name } } }"})).status == 401


async def test_each_field_counts_against_its_methods_limit(edge: Edge) -> None:
    answer = await ask(edge, "{ a: listKeys { keys { id } } b: listKeys { keys { id } } }")
    assert [error["extensions"]["reason"] for error in answer.body["errors"]] == ["RATE_LIMITED"]


async def test_the_meshs_own_methods_and_those_that_write_are_not_there(edge: Edge) -> None:
    names = (await ask(edge, "{ __schema { queryType { fields { name } } } }")).body["data"]
    fields = {field["name"] for field in names["__schema"]["queryType"]["fields"]}
    assert {"listSessions", "getSession", "listTurns", "listAgents", "listTools", "listViolations"} <= fields
    assert not {name for name in fields if name.startswith(("create", "delete", "start", "watch", "put"))}


NESTED = "{ __schema { types { fields { type " + "{ ofType " * 8 + "{ name }" + " }" * 11 + " }"
MANY = "{" + " ".join(f"f{number}: getCaller {{ principal {{ subject }} }}" for number in range(21)) + "}"
WIDE = "{ getCaller { principal {" + " ".join(f"f{number}: subject" for number in range(500)) + "} } }"
BOMB = (
    "{ getCaller { principal { ...A } } }"
    + "".join(
        f" fragment {a} on CommonPrincipal {{ ...{b} ...{b} ...{b} ...{b} ...{b} ...{b} }}"
        for a, b in ("AB", "BC", "CD", "DE")
    )
    + " fragment E on CommonPrincipal { subject }"
)
CYCLE = "{ getCaller { principal { ...A } } } fragment A on CommonPrincipal { ...A }"


@pytest.mark.parametrize("query", [NESTED, MANY, WIDE, BOMB, CYCLE, "{", "{ nothing }", "mutation { x }", ""])
async def test_what_asks_too_much_or_nothing_is_refused_before_it_runs(edge: Edge, query: str) -> None:
    answer = await ask(edge, query)
    assert answer.status == 400
    assert answer.body["errors"][0]["message"]
    assert "data" not in answer.body


async def test_what_is_no_question_is_told_so(edge: Edge) -> None:
    for body in ([], {"query": 1}, {"query": "{ getCaller { principal { subject } } }", "variables": []}):
        answer = await edge.bearer("POST", "/graphql", edge.token(), body)
        assert (answer.status, answer.body["errors"][0]["extensions"]["reason"]) == (400, "FIELD_INVALID")
