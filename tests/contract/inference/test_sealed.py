"""Encrypted secrets: opened by their master key alone, rotated while they are in use, and told to nobody."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path

import aiohttp
import pytest

from services.inference.credentials import MASTER_KEY, CredentialMissing, Credentials
from services.inference.sealing import main
from shared.sealed import MasterKey, SealBroken, Sealed

SECRET = "sk-very-secret"


@pytest.fixture
async def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one secret, and its master key where services look for it."""
    (tmp_path / "master").write_text(MasterKey.new().text)
    monkeypatch.setenv(MASTER_KEY, f"file:{tmp_path / 'master'}")
    await seal(tmp_path / "secrets.json", "openai", SECRET, monkeypatch)
    return tmp_path / "secrets.json"


async def seal(path: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{value}\n"))
    assert await told("set", str(path), name) == 0


async def told(*arguments: str) -> int:
    """What the command exits with; it has a loop of its own."""
    return await asyncio.to_thread(main, arguments)


async def read(reference: str) -> str:
    async with aiohttp.ClientSession() as session:
        return (await Credentials(session).read(reference)).get_secret_value()


async def test_a_secret_is_read_by_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await seal(file, "claude", "sk-other", monkeypatch)
    assert [await read(f"sealed:{file}#{name}") for name in ("openai", "claude")] == [SECRET, "sk-other"]
    assert await told("remove", str(file), "claude") == 0
    with pytest.raises(CredentialMissing, match="no field claude"):
        await read(f"sealed:{file}#claude")


async def test_the_file_and_its_command_tell_nobody(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await told("list", str(file)) == 0
    shown = capsys.readouterr().out
    assert "openai" in shown
    assert SECRET not in shown + file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    opened = Sealed.open(file, MasterKey.parse(file.with_name("master").read_text()))
    assert SECRET not in repr(opened)
    assert file.with_name("master").read_text() not in repr(MasterKey.parse(file.with_name("master").read_text()))


async def test_another_key_opens_nothing_and_the_error_quotes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = MasterKey.new()
    file.with_name("master").write_text(key.text)
    with pytest.raises(CredentialMissing, match="does not open") as raised:
        await read(f"sealed:{file}#openai")
    assert SECRET not in str(raised.value) + caplog.text
    assert key.text not in str(raised.value) + caplog.text


@pytest.mark.parametrize("part", ["secrets", "data_keys"])
async def test_a_changed_byte_is_found(file: Path, part: str) -> None:
    document = json.loads(file.read_text())
    ((name, sealed),) = document[part].items()
    document[part][name] = sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:]
    file.write_text(json.dumps(document))
    with pytest.raises(CredentialMissing, match="was changed"):
        await read(f"sealed:{file}#openai")


async def test_a_secret_cannot_be_moved_to_another_name(file: Path) -> None:
    document = json.loads(file.read_text())
    document["secrets"] = {"claude": document["secrets"]["openai"]}
    file.write_text(json.dumps(document))
    with pytest.raises(CredentialMissing, match="was changed"):
        await read(f"sealed:{file}#claude")


async def test_a_master_key_is_rotated_while_both_open_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = file.with_name("master"), file.with_name("next")
    new.write_text(MasterKey.new().text)
    before = file.read_text()
    assert await told("rotate", str(file), f"file:{new}") == 0
    assert json.loads(file.read_text())["secrets"] != json.loads(before)["secrets"]
    assert await read(f"sealed:{file}#openai") == SECRET
    monkeypatch.setenv(MASTER_KEY, f"file:{new}")
    await seal(file, "claude", "sk-other", monkeypatch)
    monkeypatch.setenv(MASTER_KEY, f"file:{old}")
    assert await read(f"sealed:{file}#claude") == "sk-other"
    monkeypatch.setenv(MASTER_KEY, f"file:{new}")
    assert await told("retire", str(file)) == 0
    assert await read(f"sealed:{file}#openai") == SECRET
    with pytest.raises(SealBroken, match="does not open"):
        Sealed.open(file, MasterKey.parse(old.read_text()))


@pytest.mark.parametrize("reference", ["sealed:/x#y", "inline-key", "env:NOT_THERE"])
async def test_the_master_key_is_a_reference_to_elsewhere(
    file: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.setenv(MASTER_KEY, reference)
    with pytest.raises(CredentialMissing):
        await read(f"sealed:{file}#openai")
    assert await told("retire", str(file)) == 1
