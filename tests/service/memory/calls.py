"""How the tests of memory call it and read its refusals."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from agentnet.memory.v1 import bulk_service_pb2, change_pb2, fact_pb2, fact_service_pb2
from agentnet.memory.v1 import conversation_service_pb2 as talk
from agentnet.memory.v1 import memory_service_pb2 as pb
from shared.rpc.status import from_rpc


async def remember(served: Any, content: str, tenant: str = "acme", **more: Any) -> Any:
    request = json_format.ParseDict({"content": content} | more, pb.RememberRequest())
    return (await served.memories.Remember(request, metadata=served.caller(tenant))).memory


async def remember_many(served: Any, many: list[dict[str, Any]], tenant: str = "acme") -> Any:
    request = json_format.ParseDict({"memories": many}, bulk_service_pb2.RememberManyRequest())
    return (await served.bulk.RememberMany(request, metadata=served.caller(tenant))).memories


async def recall(served: Any, query: str, tenant: str = "acme", **more: Any) -> Any:
    request = json_format.ParseDict({"query": query} | more, pb.RecallRequest())
    return await served.memories.Recall(request, metadata=served.caller(tenant))


async def found(served: Any, query: str, tenant: str = "acme", **more: Any) -> list[str]:
    return [match.memory.content for match in (await recall(served, query, tenant, **more)).matches]


async def say(served: Any, session: str, number: int, agent: str, content: str, *, remember: bool = False) -> int:
    request = pb.AppendTurnRequest(
        session_id=session, turn_id=f"{session}-{number}", agent=agent, content=content, remember=remember
    )
    held: int = (await served.memories.AppendTurn(request, metadata=served.caller())).turns_held
    return held


async def say_many(served: Any, *said: tuple[str, int, str, str]) -> talk.AppendTurnsResponse:
    turns = [
        pb.AppendTurnRequest(
            session_id=session, turn_id=f"{session}-{number}", agent=agent, content=content, remember=True
        )
        for session, number, agent, content in said
    ]
    request = talk.AppendTurnsRequest(turns=turns)
    answer: talk.AppendTurnsResponse = await served.conversations.AppendTurns(request, metadata=served.caller())
    return answer


async def context(served: Any, session: str, **more: Any) -> Any:
    request = json_format.ParseDict({"session_id": session, "agent": "Athena"} | more, pb.GetContextRequest())
    return await served.memories.GetContext(request, metadata=served.caller())


async def record(served: Any, *facts: tuple[str, str, str], several: bool = False) -> Any:
    many = [fact_pb2.Fact(subject=subject, relation=relation, object=value) for subject, relation, value in facts]
    request = fact_service_pb2.RecordFactsRequest(facts=many, several=several)
    return await served.facts.RecordFacts(request, metadata=served.caller())


async def receipts(served: Any, tenant: str = "acme", **given: Any) -> Any:
    """The receipts of what was deleted, the last first."""
    request = change_pb2.ListReceiptsRequest(**given)
    return (await served.bulk.ListReceipts(request, metadata=served.caller(tenant))).receipts


async def refused(call: Any) -> tuple[str, str, str | None]:
    """The code, the reason and the field a call is refused for."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = from_rpc(raised.value)
    return error.code.name, error.reason_name, error.field
