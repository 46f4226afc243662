"""What an agent remembers between conversations: interactions, context, facts and preferences."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agentnet.client.calls import unary
from agentnet.client.transport import Transport
from agentnet.memory.v1 import (
    bulk_service_pb2,
    bulk_service_pb2_grpc,
    context_pb2,
    fact_pb2,
    fact_service_pb2,
    fact_service_pb2_grpc,
    memory_pb2,
    memory_service_pb2,
    memory_service_pb2_grpc,
)

Answering = Callable[[str], Awaitable[str]]
EPISODIC = memory_pb2.MEMORY_TYPE_EPISODIC


class MemoryManager:
    """The memory of one agent, for programs that run the agent themselves.

    With `auto_store_interactions`, `interact` keeps what was said; with `auto_inject_context`, it gives the agent what
    it should know. Every method raises AgentNetError.
    """

    def __init__(
        self,
        transport: Transport,
        agent: str,
        *,
        auto_store_interactions: bool = True,
        auto_inject_context: bool = True,
        max_tokens: int = 2_000,
    ) -> None:
        self._memories = memory_service_pb2_grpc.MemoryServiceStub(transport.channel)
        self._bulk = bulk_service_pb2_grpc.BulkServiceStub(transport.channel)
        self._facts = fact_service_pb2_grpc.FactServiceStub(transport.channel)
        self._call = transport.options
        self._agent = agent
        self._store = auto_store_interactions
        self._inject = auto_inject_context
        self._max_tokens = max_tokens

    async def interact(self, session_id: str, user: str, message: str, answer: Answering) -> str:
        """Asks the agent by `answer`, which is given the message with what the agent should know before it, and keeps
        both sides. Returns what the agent said.
        """
        prompt = message
        if self._inject:
            known = await self.get_context_for_agent(session_id, message, subjects=(f"user:{user}",))
            prompt = f"{known}\n\n{message}" if known else message
        said = await answer(prompt)
        if self._store:
            await self.store_interaction(session_id, [(user, message), (self._agent, said)])
        return said

    async def store_interaction(
        self, session_id: str, lines: Sequence[tuple[str, str]], *, tags: Sequence[str] = (), importance: float = 0.5
    ) -> Sequence[memory_pb2.Memory]:
        """Keeps what was said, as (who, what): as episodes, all or nothing, and as the session's last turns. What
        others than this agent said is every agent's to know, as `who: what`. Empty lines are left out.
        """
        said = [(f"turn_{uuid.uuid4().hex}", who, what) for who, what in lines if what.strip()]
        requests = [
            memory_service_pb2.RememberRequest(
                content=what if who == self._agent else f"{who}: {what}", agent=who if who == self._agent else "",
                session_id=session_id, turn_id=turn, tags=tags, importance=importance, memory_type=EPISODIC,
            )
            for turn, who, what in said
        ]  # fmt: skip
        if not requests:
            return []
        request = bulk_service_pb2.RememberManyRequest(memories=requests)
        kept = await unary(self._bulk.RememberMany(request, **self._call()))
        for turn, who, what in said:
            spoken = memory_service_pb2.AppendTurnRequest(session_id=session_id, turn_id=turn, agent=who, content=what)
            await unary(self._memories.AppendTurn(spoken, **self._call()))
        return [one.memory for one in kept.memories]

    async def retrieve_relevant(
        self,
        query: str,
        *,
        memory_types: Sequence[memory_pb2.MemoryType.ValueType] = (),
        limit: int = 5,
        own: bool = False,
    ) -> Sequence[memory_service_pb2.ScoredMemory]:
        """What fits the query, best first. `own`: only what this agent said and what belongs to every agent."""
        request = memory_service_pb2.RecallRequest(
            query=query, limit=limit, memory_types=memory_types, agent=self._agent if own else ""
        )
        return (await unary(self._memories.Recall(request, **self._call()))).matches

    async def get_context_for_agent(
        self,
        session_id: str,
        query: str,
        *,
        max_tokens: int = 0,
        subjects: Sequence[str] = (),
        handoff_from: str = "",
        handoff_note: str = "",
    ) -> str:
        """One text of at most `max_tokens` (0: the limit of this manager) that tells the agent what it should know;
        empty when nothing is known. After a handoff, name who hands over.
        """
        options = context_pb2.ContextOptions(
            max_tokens=max_tokens or self._max_tokens,
            subjects=subjects,
            handoff_from=handoff_from,
            handoff_note=handoff_note,
        )
        request = memory_service_pb2.GetContextRequest(
            session_id=session_id, agent=self._agent, query=query, options=options
        )
        return (await unary(self._memories.GetContext(request, **self._call()))).assembled.text

    async def store_facts(
        self, facts: Sequence[tuple[str, str, str]], *, several: bool = False, session_id: str = ""
    ) -> Sequence[fact_pb2.Fact]:
        """Records (subject, relation, object). Unless `several` may hold at once, a new object ends the one before."""
        many = [
            fact_pb2.Fact(subject=subject, relation=relation, object=value, session_id=session_id, agent=self._agent)
            for subject, relation, value in facts
        ]
        request = fact_service_pb2.RecordFactsRequest(facts=many, several=several)
        return (await unary(self._facts.RecordFacts(request, **self._call()))).facts

    async def remember_preferences(self, user: str, preferences: Mapping[str, str]) -> Sequence[fact_pb2.Fact]:
        """Records what a user prefers, for example `{"language": "German"}`; a new preference ends the one before."""
        return await self.store_facts([(f"user:{user}", f"prefers {what}", how) for what, how in preferences.items()])

    async def preferences(self, user: str) -> dict[str, str]:
        """What the user prefers now."""
        request = fact_service_pb2.ListFactsRequest(subject=f"user:{user}", page_size=500)
        found = await unary(self._facts.ListFacts(request, **self._call()))
        named = "prefers "
        return {
            fact.relation.removeprefix(named): fact.object
            for fact in reversed(found.facts)
            if fact.relation.startswith(named)
        }
