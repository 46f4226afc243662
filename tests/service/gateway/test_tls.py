"""TLS at the edge and mutual TLS behind it, with the real Envoy: who is heard, who is not, and certificates that change."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from grpc.aio import AioRpcError

from agentnet.client import AgentNet
from agentnet.client.credentials import Target
from agentnet.client.transport import Transport
from agentnet.gateway.v1 import event_service_pb2, event_service_pb2_grpc, identity_service_pb2
from agentnet.gateway.v1.identity_service_pb2_grpc import IdentityServiceStub
from deploy.local.authority import PARTIES, Authority
from deploy.local.state import State
from shared.clock import SystemClock
from shared.identity import Principal, Signer
from shared.rpc import tls
from shared.rpc.channel import mesh_channel
from shared.settings import SERVICES
from tests.support.edge import Edge, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDENTITY = "agentnet.gateway.v1.IdentityService"
ASK = identity_service_pb2.GetCallerRequest()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge"), tls=SERVICES) as running:
        yield running


def authority(edge: Edge) -> Authority:
    assert edge.authority
    return edge.authority


def serial(edge: Edge) -> int:
    host, _, port = edge.address.partition(":")
    shown = ssl.get_server_certificate((host, int(port)), ca_certs=str(authority(edge).certificate))
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


def own_serial(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / tls.CERTIFICATE).read_bytes()).serial_number


async def caller(channel: grpc.aio.Channel, **metadata: str) -> str:
    given = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    answer = await IdentityServiceStub(channel).GetCaller(ASK, metadata=given, timeout=5)
    return str(answer.principal.subject)


def header(edge: Edge) -> str:
    signer = Signer("gateway", edge.state.key("gateway.pem").read_bytes(), SystemClock())
    return signer.sign(Principal(subject="ada", tenant_id="acme", roles=frozenset({"admin"})), timedelta(minutes=1))


async def test_rest_and_grpc_are_served_over_tls_and_nothing_in_the_clear(edge: Edge) -> None:
    assert (await edge.ok("GET", "/v1/caller", edge.token()))["principal"]["subject"] == "ada"
    target = Target(edge.url, edge.token(), authority(edge).certificate)
    async with AgentNet(Transport(target)) as mesh:
        assert (await mesh.caller()).subject == "ada"
    async with grpc.aio.insecure_channel(edge.address) as plain:
        with pytest.raises(AioRpcError) as refused:
            await caller(plain, authorization=f"Bearer {edge.token()}")
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_trusts_others_does_not_talk_to_this_edge(edge: Edge) -> None:
    async with AgentNet(Transport(Target(edge.url, edge.token()))) as mesh:
        with pytest.raises(Exception, match=r"UNAVAILABLE|failed to connect"):
            await mesh.caller()


async def test_old_protocols_are_refused(edge: Edge) -> None:
    host, _, port = edge.address.partition(":")
    old = ssl.create_default_context(cafile=str(authority(edge).certificate))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection(host, int(port), ssl=old)


@pytest.mark.parametrize("where", ["internal", "behind"])
async def test_inside_only_certificates_of_the_mesh_are_heard(edge: Edge, where: str, tmp_path: Path) -> None:
    """Neither Envoy's internal listener nor a service hears who shows none, another's, or speaks in the clear; a signed
    identity changes nothing.
    """
    address, ours = getattr(edge, where), authority(edge)
    another = Authority.of(State(tmp_path))
    another.renew()
    trusted = ours.certificate.read_bytes()
    theirs = tls.Material.read(another.of_party("tools"))
    credentials = {
        "none": grpc.ssl_channel_credentials(trusted),
        "another authority's": grpc.ssl_channel_credentials(trusted, theirs.key, theirs.certificate),
    }
    for shown in credentials.values():
        async with grpc.aio.secure_channel(address, shown) as channel:
            with pytest.raises(AioRpcError) as refused:
                await caller(channel, x_agentnet_identity=header(edge))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    async with tls.channel(address, None) as plain:
        with pytest.raises(AioRpcError):
            await caller(plain, x_agentnet_identity=header(edge))
    async with tls.channel(address, ours.of_party("tools")) as channel:
        assert await caller(channel, x_agentnet_identity=header(edge)) == "ada"


async def test_a_service_that_shows_anothers_name_gets_no_call(tmp_path: Path) -> None:
    """A stolen certificate of one service is not good for another: Envoy wants the very name."""
    async with running_edge(tmp_path, tls=[name for name in SERVICES if name != "cost"]) as edge:
        metadata = (("x-agentnet-identity", header(edge)),)
        async with mesh_channel(edge.internal, services=(IDENTITY,), tls=authority(edge).of_party("tools")) as channel:
            assert await caller(channel, x_agentnet_identity=header(edge)) == "ada"
            with pytest.raises(AioRpcError) as refused:
                await channel.unary_unary("/agentnet.cost.v1.CostService/GetBudget")(b"", timeout=5, metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_new_certificates_are_taken_without_a_restart_and_running_streams_go_on(edge: Edge) -> None:
    ours, before = authority(edge), serial(edge)
    folder = ours.of_party("tools")
    async with mesh_channel(edge.internal, services=(IDENTITY,), tls=folder) as channel:
        stub = event_service_pb2_grpc.EventServiceStub(channel)
        metadata = (("x-agentnet-identity", header(edge)),)
        listening = stub.Subscribe(event_service_pb2.SubscribeRequest(), metadata=metadata)
        await listening.wait_for_connection()
        for party, hosts in (("edge", ("127.0.0.1",)), ("gateway", (*SERVICES, "127.0.0.1")), ("tools", ("tools",))):
            ours.issue(party, hosts)
        await asyncio.sleep(1.1)  # files are looked at once a second
        assert serial(edge) == own_serial(ours.of_party("edge")) != before
        host, _, port = edge.behind.partition(":")
        context = ssl.create_default_context(cafile=str(ours.certificate))
        context.load_cert_chain(folder / tls.CERTIFICATE, folder / tls.KEY)
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        assert x509.load_der_x509_certificate(shown).serial_number == own_serial(ours.of_party("gateway"))
        assert await caller(channel, x_agentnet_identity=header(edge)) == "ada"
        await edge.ok("POST", "/v1/events", edge.token(), {"events": [{"name": "ticket.created"}]})
        async for heard in listening:
            if heard.HasField("event"):
                assert heard.event.name == "ticket.created"
                break
        listening.cancel()


async def test_a_half_replaced_pair_is_waited_out(tmp_path: Path) -> None:
    ours = Authority.of(State(tmp_path))
    ours.renew()
    folder = ours.of_party("tools")
    certificates = tls.Certificates(folder)
    whole = certificates.material
    certificates._looked -= 2
    (folder / tls.KEY).write_bytes(tls.Material.read(ours.of_party("cost")).key)
    assert not certificates.renewed()
    assert certificates.material == whole
    certificates._looked -= 2
    ours.issue("tools", ("tools",))
    assert certificates.renewed()
    assert certificates.material != whole


async def test_the_local_authority_renews_in_time_and_only_what_is_due(tmp_path: Path) -> None:
    ours, now = Authority.of(State(tmp_path)), datetime.now(UTC)
    assert ours.renew(now) == list(PARTIES)
    assert ours.renew(now + timedelta(days=59)) == []
    (ours.of_party("cost") / tls.CERTIFICATE).unlink()
    assert ours.renew(now) == ["cost"]
    assert ours.renew(now + timedelta(days=61)) == list(PARTIES)
    for party in (*PARTIES, "."):
        for file in ours.of_party(party).glob("*.key"):
            assert file.stat().st_mode & 0o077 == 0
