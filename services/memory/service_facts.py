"""FactService and ConversationService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.memory.v1 import conversation_service_pb2 as talk
from agentnet.memory.v1 import conversation_service_pb2_grpc as talk_rpc
from agentnet.memory.v1 import fact_service_pb2 as pb
from agentnet.memory.v1 import fact_service_pb2_grpc as rpc
from services.memory import convert, convert_context
from services.memory import convert_facts as facts
from services.memory.conversation import Conversations
from services.memory.episodes import Episodes
from services.memory.facts import Facts
from shared import fields
from shared.clock import Clock
from shared.identity import current


class FactService(rpc.FactServiceServicer):
    """What is so?"""

    def __init__(self, known: Facts, clock: Clock) -> None:
        self._facts = known
        self._clock = clock

    async def RecordFacts(self, request: pb.RecordFactsRequest, context: Any) -> pb.RecordFactsResponse:
        return facts.recorded(await self._facts.record(current().tenant_id, facts.new_facts(request)))

    async def ListFacts(self, request: pb.ListFactsRequest, context: Any) -> pb.ListFactsResponse:
        asked = facts.listing(request, self._clock)
        return facts.list_response(await self._facts.every(current().tenant_id, asked.chosen, asked.page), asked)

    async def ListRelatedFacts(self, request: pb.ListRelatedFactsRequest, context: Any) -> pb.ListRelatedFactsResponse:
        walk = facts.walk(request)
        found = await self._facts.related(current().tenant_id, walk.subject, depth=walk.depth, limit=walk.limit)
        return pb.ListRelatedFactsResponse(facts=[facts.fact(one) for one in found])

    async def EndFact(self, request: pb.EndFactRequest, context: Any) -> pb.EndFactResponse:
        fact_id = fields.identifier(request.fact_id, "fact_id")
        until = convert.moment(request, "valid_to_time", "valid_to_time")
        return pb.EndFactResponse(fact=facts.fact(await self._facts.end(current().tenant_id, fact_id, valid_to=until)))

    async def ForgetFacts(self, request: pb.ForgetFactsRequest, context: Any) -> pb.ForgetFactsResponse:
        caller = current()
        gone = await self._facts.forget(caller.tenant_id, facts.subject(request), requested_by=caller.subject)
        return pb.ForgetFactsResponse(receipts=[convert.receipt(one) for one in gone])


class ConversationService(talk_rpc.ConversationServiceServicer):
    """What was said?"""

    def __init__(self, conversations: Conversations, episodes: Episodes) -> None:
        self._conversations = conversations
        self._episodes = episodes

    async def GetConversation(self, request: talk.GetConversationRequest, context: Any) -> talk.GetConversationResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        found = await self._conversations.history(current().tenant_id, session_id)
        return talk.GetConversationResponse(
            conversation=convert_context.conversation(session_id, found), turns=convert.short_term(found.turns)
        )

    async def CompactConversation(
        self, request: talk.CompactConversationRequest, context: Any
    ) -> talk.CompactConversationResponse:
        wanted = convert_context.compaction(request)
        tenant = current().tenant_id
        folded = await self._conversations.compact(
            tenant, wanted.session_id, keep_turns=wanted.keep_turns, max_tokens=wanted.max_tokens
        )
        found = await self._conversations.history(tenant, wanted.session_id)
        return talk.CompactConversationResponse(
            conversation=convert_context.conversation(wanted.session_id, found), folded_turns=folded
        )

    async def AppendTurns(self, request: talk.AppendTurnsRequest, context: Any) -> talk.AppendTurnsResponse:
        said, unfit = convert_context.said(request)
        _, refused = await self._episodes.append_many(current().tenant_id, list(said.values()))
        reasons = unfit | {place: refused[one] for place, one in said.items() if one in refused}
        return convert_context.refused(request, reasons)
