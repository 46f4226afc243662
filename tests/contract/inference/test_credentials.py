"""Credentials by reference: from the environment, a file, and Vault and AWS over their real wire formats."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from botocore.session import get_session
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from services.inference import credentials
from services.inference.credentials import CredentialMissing, Credentials, Proof
from services.inference.wiring import bearer
from tests.support.valkey import free_port

SECRET = "sk-very-secret"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def read(session: aiohttp.ClientSession, reference: str, **environment: str) -> str:
    return (await Credentials(session, environment).read(reference)).get_secret_value()


async def missing(session: aiohttp.ClientSession, reference: str, **environment: str) -> str:
    with pytest.raises(CredentialMissing) as raised:
        await read(session, reference, **environment)
    assert SECRET not in str(raised.value)
    return str(raised.value)


async def test_from_the_environment(session: aiohttp.ClientSession) -> None:
    assert await read(session, "env:KEY", KEY=SECRET) == SECRET
    assert "no KEY" in await missing(session, "env:KEY")
    assert "empty" in await missing(session, "env:KEY", KEY=" ")
    assert "no key has" in await missing(session, "env:KEY", KEY=f"{SECRET}\r\nx-more: 1")


async def test_a_key_where_its_variable_should_be_is_not_quoted(session: aiohttp.ClientSession) -> None:
    assert "name of a variable" in await missing(session, f"env:{SECRET}")


async def test_from_a_file(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")
    assert await read(session, f"file:{path}") == SECRET
    assert "cannot be read" in await missing(session, f"file:{tmp_path / 'none'}")


async def test_a_key_inline_is_no_reference(session: aiohttp.ClientSession) -> None:
    assert "by reference" in await missing(session, SECRET)
    assert "by reference" in await missing(session, f"plain:{SECRET}")


@pytest.fixture
async def vault() -> AsyncIterator[str]:
    """KV version 2 as Vault serves it, for one token and one namespace."""

    async def secret(request: web.Request) -> web.Response:
        if request.headers.get("x-vault-token") != "s.token":
            return web.json_response({"errors": ["permission denied"]}, status=403)
        if request.match_info["path"] not in ("team/openai", "team/odd"):
            return web.json_response({"errors": []}, status=404)
        if request.match_info["path"] == "team/odd":
            return web.Response(text=request.headers.get("x-vault-namespace", ""))
        data = {"data": {"key": SECRET, "namespace": request.headers.get("x-vault-namespace", "")}}
        return web.json_response({"request_id": "1", "lease_id": "", "data": {**data, "metadata": {"version": 3}}})

    app = web.Application()
    app.router.add_get("/v1/kv/data/{path:.+}", secret)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_from_vault(session: aiohttp.ClientSession, vault: str) -> None:
    environment = {"VAULT_ADDR": vault, "VAULT_TOKEN": "s.token"}
    assert await read(session, "vault:kv/team/openai#key", **environment) == SECRET
    assert await read(session, "vault:kv/team/openai#namespace", **environment, VAULT_NAMESPACE="eu") == "eu"
    assert "no field other" in await missing(session, "vault:kv/team/openai#other", **environment)
    assert "404" in await missing(session, "vault:kv/team/none#key", **environment)
    assert "403" in await missing(session, "vault:kv/team/openai#key", VAULT_ADDR=vault, VAULT_TOKEN="s.wrong")
    assert "no VAULT_ADDR" in await missing(session, "vault:kv/team/openai#key")


@pytest.mark.parametrize(
    "answered", ["", "<html>", "[1]", '{"data": null}', '{"data": {"data": null}}', '{"data": {"key": "k"}}']
)
async def test_what_is_no_answer_of_vault_s_key_value_store_is_told(
    session: aiohttp.ClientSession, vault: str, answered: str
) -> None:
    environment = {"VAULT_ADDR": vault, "VAULT_TOKEN": "s.token", "VAULT_NAMESPACE": answered}
    assert "holds no fields" in await missing(session, "vault:kv/team/odd#key", **environment)


async def test_vault_that_is_away_is_told(session: aiohttp.ClientSession) -> None:
    environment = {"VAULT_ADDR": f"http://127.0.0.1:{free_port()}", "VAULT_TOKEN": "s.token"}
    assert "cannot be reached" in await missing(session, "vault:kv/team/openai#key", **environment)


async def test_vault_that_does_not_answer_is_given_up(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        environment = {"VAULT_ADDR": f"http://127.0.0.1:{mute.getsockname()[1]}", "VAULT_TOKEN": "s.token"}
        assert "not read within" in await missing(session, "vault:kv/team/openai#key", **environment)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


@pytest.mark.usefixtures("aws")
async def test_from_aws(session: aiohttp.ClientSession) -> None:
    client = await asyncio.to_thread(lambda: get_session().create_client("secretsmanager"))
    await asyncio.to_thread(lambda: client.create_secret(Name="plain", SecretString=SECRET))
    await asyncio.to_thread(lambda: client.create_secret(Name="fields", SecretString=json.dumps({"key": SECRET})))
    assert await read(session, "aws:plain") == SECRET
    assert await read(session, "aws:fields#key") == SECRET
    assert "no field other" in await missing(session, "aws:fields#other")
    assert "does not give none" in await missing(session, "aws:none")
    await asyncio.to_thread(lambda: client.create_secret(Name="bytes", SecretBinary=SECRET.encode()))
    assert "binary" in await missing(session, "aws:bytes")
    assert "holds no fields" in await missing(session, "aws:plain#key")


async def test_a_refused_key_is_read_again_and_not_at_every_call(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    path = tmp_path / "key"
    path.write_text("k-1")
    reads = 0

    async def read() -> SecretStr:
        nonlocal reads
        reads += 1
        return await Credentials(session, {}).read(f"file:{path}")

    proof = Proof(read, await read(), bearer)
    first = proof.headers
    assert not await proof.renewed(first)  # it leads where it led
    path.write_text("k-2")
    assert not await proof.renewed(first)  # and was read a moment ago
    assert reads == 2
    proof = Proof(read, SecretStr("k-1"), bearer)
    assert await asyncio.gather(*(proof.renewed(first) for _ in range(9))) == [True] * 9
    assert (proof.headers, reads) == ({"authorization": "Bearer k-2"}, 3)
    path.unlink()
    gone = Proof(read, SecretStr("k-1"), bearer)
    assert not await gone.renewed(first)  # the call fails as it failed
