"""The official A2A client, unchanged, against the edge, on all three transports; tasks are sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
import pytest_asyncio
from a2a.client import ClientConfig, ClientFactory
from a2a.client.client import Client
from a2a.client.interceptors import ClientCallInterceptor
from a2a.types import a2a_pb2
from a2a.utils.errors import A2AError, InvalidParamsError, TaskNotFoundError, UnsupportedOperationError
from google.protobuf import json_format

from tests.support.conformance_agent import ConformanceAgent
from tests.support.edge import Edge, running_edge
from tests.support.receiver import running_receiver
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_orchestrator import serve_orchestrator

pytestmark = pytest.mark.asyncio(loop_scope="module")
BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")
COMPLETED = a2a_pb2.TASK_STATE_COMPLETED


class Bearer(ClientCallInterceptor):
    """Sends a token with each call."""

    def __init__(self, token: str) -> None:
        self._header = {"Authorization": f"Bearer {token}"}

    async def before(self, args):
        from a2a.client.client import ClientCallContext

        args.context = args.context or ClientCallContext()
        args.context.service_parameters = {**(args.context.service_parameters or {}), **self._header}

    async def after(self, args):
        """Nothing."""


def serve(server: grpc.aio.Server) -> None:
    ScriptedInference().serve(server)
    serve_orchestrator(server)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge"), serve=serve, webhook_private=True) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    folder = tmp_path_factory.mktemp("scripted")
    async with running_edge(folder, serve=serve, work=ConformanceAgent(), webhook_private=True) as running:
        yield running


@asynccontextmanager
async def client(edge: Edge, binding: str, *, agent: str = "Athena", tenant: str = "acme") -> AsyncIterator[Client]:
    """As an application makes it: from the agent's card."""
    token = edge.token(tenant=tenant)
    card = a2a_pb2.AgentCard()
    json_format.ParseDict(await edge.ok("GET", f"/a2a/{agent}/.well-known/agent-card.json", token), card)
    async with httpx.AsyncClient(timeout=10) as http:
        config = ClientConfig(
            supported_protocol_bindings=[binding], httpx_client=http, grpc_channel_factory=grpc.aio.insecure_channel
        )
        async with ClientFactory(config).create(card, interceptors=[Bearer(token)]) as made:
            yield made


def asked(text: str, *, name: str = "m1", **more) -> a2a_pb2.SendMessageRequest:
    message = a2a_pb2.Message(message_id=name, role=a2a_pb2.ROLE_USER, parts=[a2a_pb2.Part(text=text)], **more)
    return a2a_pb2.SendMessageRequest(message=message)


async def sent(client: Client, request: a2a_pb2.SendMessageRequest) -> list[a2a_pb2.StreamResponse]:
    return [event async for event in client.send_message(request)]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_an_agent_answers_streamed_and_its_task_is_kept(edge: Edge, binding: str) -> None:
    async with client(edge, binding) as athena:
        events = await sent(athena, asked("Say hello to them."))
        assert events[0].task.status.state == a2a_pb2.TASK_STATE_SUBMITTED
        said = "".join(part.text for event in events for part in event.artifact_update.artifact.parts)
        assert said == "Say hello to them."
        assert sum(event.HasField("artifact_update") for event in events) == 5
        assert events[-1].status_update.status.state == COMPLETED

        task = await athena.get_task(a2a_pb2.GetTaskRequest(id=events[0].task.id))
        assert (task.artifacts[0].parts[0].text, task.status.state) == ("Say hello to them.", COMPLETED)
        assert [message.parts[0].text for message in task.history] == ["Say hello to them."]
        listed = await athena.list_tasks(a2a_pb2.ListTasksRequest(context_id=task.context_id))
        assert [one.id for one in listed.tasks] == [task.id]
        with pytest.raises(UnsupportedOperationError):
            await sent(athena, asked("More.", task_id=task.id))
        with pytest.raises(A2AError):
            await athena.cancel_task(a2a_pb2.CancelTaskRequest(id=task.id))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_messages_of_one_context_know_what_was_said(edge: Edge, binding: str) -> None:
    async with client(edge, binding) as athena:
        first = (await sent(athena, asked("I am Ada.")))[0].task
        events = await sent(athena, asked("Who am I?", context_id=first.context_id))
        said = "".join(part.text for event in events for part in event.artifact_update.artifact.parts)
        assert "User: I am Ada." in said
        assert said.endswith("User: Who am I?")
        assert events[0].task.context_id == first.context_id


@pytest.mark.parametrize("binding", BINDINGS)
async def test_what_is_not_there_is_told_in_the_protocols_words(edge: Edge, binding: str) -> None:
    async with client(edge, binding) as athena:
        with pytest.raises(TaskNotFoundError):
            await athena.get_task(a2a_pb2.GetTaskRequest(id="task_none"))
        with pytest.raises(InvalidParamsError):
            await sent(athena, a2a_pb2.SendMessageRequest(message=a2a_pb2.Message(message_id="m", role=1)))
        theirs = (await sent(athena, asked("Mine.")))[0].task
    async with client(edge, binding, tenant="globex") as stranger:
        with pytest.raises(TaskNotFoundError):
            await stranger.get_task(a2a_pb2.GetTaskRequest(id=theirs.id))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_task_that_asks_for_more_goes_on_and_its_follower_hears(scripted: Edge, binding: str) -> None:
    async with client(scripted, binding) as agent:
        begun = await sent(agent, asked("Go.", name="tck-input-required"))
        task = begun[0].task
        assert begun[-1].status_update.status.message.parts[0].text == "Which one?"
        following = asyncio.create_task(_followed(agent, task.id))
        await asyncio.sleep(0.2)
        await sent(agent, asked("This one.", name="tck-stream", task_id=task.id))
        assert (await following)[-1].status_update.status.state == COMPLETED
        kept = await agent.get_task(a2a_pb2.GetTaskRequest(id=task.id))
        assert [message.parts[0].text for message in kept.history] == ["Go.", "This one.", "Which one?"]


async def _followed(agent: Client, task_id: str) -> list[a2a_pb2.StreamResponse]:
    return [event async for event in agent.subscribe(a2a_pb2.SubscribeToTaskRequest(id=task_id))]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_cancelled_task_says_so(scripted: Edge, binding: str) -> None:
    async with client(scripted, binding) as agent:
        token = scripted.token()
        body = {"message": {"messageId": "test-resubscribe-message-id", "role": "ROLE_USER", "parts": [{"text": "x"}]},
                "configuration": {"returnImmediately": True}}  # fmt: skip
        version = {"a2a_version": "1.0", "authorization": f"Bearer {token}"}
        answer = await scripted.rest("POST", "/a2a/Athena/message:send", body, **version)
        task_id = answer.body["task"]["id"]
        ended = await agent.cancel_task(a2a_pb2.CancelTaskRequest(id=task_id))
        assert ended.status.state == a2a_pb2.TASK_STATE_CANCELED


async def test_addresses_are_told_with_their_token_and_private_ones_are_refused(scripted: Edge) -> None:
    async with running_receiver() as receiver, client(scripted, "JSONRPC") as agent:
        task = (await sent(agent, asked("Go.", name="tck-input-required")))[0].task
        address = a2a_pb2.TaskPushNotificationConfig(
            task_id=task.id, id="here", url=f"{receiver.url}/a2a", token="t0ken",
            authentication=a2a_pb2.AuthenticationInfo(scheme="Bearer", credentials="mine"),
        )  # fmt: skip
        await agent.create_task_push_notification_config(address)
        await sent(agent, asked("This one.", name="tck-stream", task_id=task.id))
        got = await receiver.until("/a2a", 2)
        states = [one.body["statusUpdate"]["status"]["state"] for one in got if "statusUpdate" in one.body]
        assert states[0] == "TASK_STATE_WORKING"
        assert got[0].headers["x-a2a-notification-token"] == "t0ken"
        assert got[0].headers["authorization"] == "Bearer mine"
        listed = await agent.list_task_push_notification_configs(
            a2a_pb2.ListTaskPushNotificationConfigsRequest(task_id=task.id)
        )
        assert [one.id for one in listed.configs] == ["here"]


async def test_the_public_card_needs_no_credential_and_names_no_agent(edge: Edge) -> None:
    card = await edge.rest("GET", "/.well-known/agent-card.json")
    assert (card.status, card.headers["cache-control"]) == (200, "public, max-age=300")
    assert "Athena" not in card.text
    assert {one["protocolBinding"] for one in card.body["supportedInterfaces"]} == set(BINDINGS)
    assert (await edge.rest("GET", "/a2a/Athena/.well-known/agent-card.json")).status == 401
    version = {"a2a_version": "1.0", "authorization": f"Bearer {edge.token()}"}
    more = await edge.rest("GET", "/a2a/extendedAgentCard", **version)
    assert [skill["name"] for skill in more.body["skills"]] == ["Athena"]


async def test_each_transport_wants_the_version_and_a_permission(edge: Edge) -> None:
    token = edge.token()
    old = await edge.bearer("GET", "/a2a/tasks/x", token)
    assert (old.status, old.body["error"]["details"][0]["reason"]) == (400, "VERSION_NOT_SUPPORTED")
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
    assert (await edge.bearer("POST", "/a2a", token, rpc)).body["error"]["code"] == -32009
    for path in ("/a2a", "/a2a/Athena", "/a2a/message:send"):
        assert (await edge.bearer("POST", path, edge.token("auditor"), rpc)).status == 403
    from a2a.types import a2a_pb2_grpc

    async with grpc.aio.insecure_channel(edge.address) as channel:
        stub = a2a_pb2_grpc.A2AServiceStub(channel)
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", f"Bearer {token}"),), grpc.StatusCode.FAILED_PRECONDITION),
            ((("authorization", f"Bearer {edge.token('auditor')}"),), grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.SendMessage(asked("x"), metadata=metadata)
            assert raised.value.code() == code


async def test_a_path_in_a_header_leads_nowhere_else(edge: Edge) -> None:
    """Whoever calls the gRPC method itself and claims another path is served the method alone: no such task."""
    from agentnet.gateway.v1 import a2a_service_pb2, a2a_service_pb2_grpc

    metadata = (
        ("authorization", f"Bearer {edge.token('auditor')}"), ("a2a-version", "1.0"),
        ("x-envoy-original-path", "/a2a/tasks/x:cancel"),
    )  # fmt: skip
    async with grpc.aio.insecure_channel(edge.address) as channel:
        stub = a2a_service_pb2_grpc.A2aServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="404"):
            [one async for one in stub.GetTask(a2a_service_pb2.GetTaskRequest(id="task_none"), metadata=metadata)]
