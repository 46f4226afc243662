"""Bundles: what is taken in, what is refused and how, who gets what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.policy.v1 import attachment_pb2, bundle_pb2
from agentnet.policy.v1 import policy_service_pb2 as pb
from services.policy import library
from services.policy.signing import is_signed, signed_text
from tests.service.policy.calls import WORDS, check, create, refusal
from tests.support.forged import NUMBERS, forged
from tests.support.identity import Keys

BAD = sorted((Path(__file__).parent / "bad_bundles").glob("*.yaml"))
PROFILES = """
mode: permissive
rules:
  - {name: words, type: keyword, severity: severe, keywords: [mesh]}
  - {name: money, type: keyword, severity: severe, keywords: [gold]}
profiles:
  base: {rules: [words]}
  finance: {extends: [base], rules: [money], mode: strict}
agents:
  - {name: Athena, profile: base, version: 1.0.0, system_prompt: Think.}
  - {name: Midas, profile: finance}
"""


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
async def test_a_bad_bundle_is_refused_with_line_and_reason(stub: Any, keys: Keys, file: Path) -> None:
    expected = json.loads(file.read_text().splitlines()[0].removeprefix("# "))
    error = await refusal(create(stub, keys, file.read_text()))
    assert (error.code, error.reason_name) == (grpc.StatusCode.INVALID_ARGUMENT, "BUNDLE_INVALID")
    assert error.facts["line"] == expected["line"]
    assert expected["says"] in error.message


async def test_a_bad_upload_never_replaces_a_good_bundle(stub: Any, keys: Keys) -> None:
    await create(stub, keys, labels=("production",))
    for file in BAD:
        await refusal(create(stub, keys, file.read_text(), labels=("production",)))
    assert (await check(stub, keys, "the mesh", target=bundle_pb2.RULE_TARGET_OUTPUT)).text == "the [REDACTED:words]"
    listed = await stub.ListBundles(pb.ListBundlesRequest(name="words"), metadata=keys.metadata())
    assert [(one.version, list(one.labels)) for one in listed.bundles] == [("1.0.0", ["production"])]


async def test_ten_megabytes_are_refused(stub: Any, keys: Keys) -> None:
    error = await refusal(create(stub, keys, WORDS + "#" * 10_000_000))
    assert (error.reason_name, error.field) == ("FIELD_TOO_LONG", "document")


async def test_what_is_in_force_for_a_tenant_has_a_size(stub: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_IN_FORCE", 2 * len(WORDS) + 10)
    for name in ("one", "two"):
        await create(stub, keys, name=name, labels=("production",))
    await create(stub, keys, name="two", labels=("production",))
    stored = await create(stub, keys, name="three")
    label = pb.LabelBundleRequest(name="three", label="production")
    attach = attachment_pb2.AttachBundleRequest(name="three", agent="Athena")
    for call in (
        stub.LabelBundle(label, metadata=keys.metadata()),
        stub.AttachBundle(attach, metadata=keys.metadata()),
        create(stub, keys, name="four", labels=("production",)),
    ):
        error = await refusal(call)
        assert (error.reason_name, error.field) == ("FIELD_INVALID", "name")
    await stub.LabelBundle(pb.LabelBundleRequest(name="one", label="production", remove=True), metadata=keys.metadata())
    answer = await stub.LabelBundle(label, metadata=keys.metadata())
    assert (answer.bundle.version, list(answer.bundle.labels)) == (stored.version, ["production"])


async def test_a_version_is_made_once_and_the_next_counts_on(stub: Any, keys: Keys) -> None:
    assert (await create(stub, keys)).version == "1.0.0"
    assert (await create(stub, keys)).version == "1.0.1"
    first = await stub.ListBundles(pb.ListBundlesRequest(page_size=1), metadata=keys.metadata())
    for cursor in NUMBERS:
        wrong = pb.ListBundlesRequest(page_token=forged(first.next_page_token, cursor))
        assert (await refusal(stub.ListBundles(wrong, metadata=keys.metadata()))).field == "page_token"
    error = await refusal(create(stub, keys, version="1.0.0"))
    assert (error.code, error.reason_name) == (grpc.StatusCode.ALREADY_EXISTS, "BUNDLE_VERSION_EXISTS")


async def test_the_digest_is_signed_by_a_key_of_the_mesh(stub: Any, keys: Keys) -> None:
    made = await create(stub, keys)
    jwks = json.loads(keys.jwks.read_text())
    text = signed_text("acme", "words", "1.0.0", made.digest)
    assert is_signed(jwks, made.signing_key, made.signature, text)
    assert not is_signed(jwks, made.signing_key, made.signature, signed_text("acme", "words", "1.0.1", made.digest))
    built_in = (await stub.GetBundle(pb.GetBundleRequest(name="default"), metadata=keys.metadata())).bundle
    text = signed_text("*", "default", "1.0.0", built_in.digest)
    assert is_signed(jwks, built_in.signing_key, built_in.signature, text)


async def test_profiles_add_up_and_belong_to_agents(stub: Any, keys: Keys) -> None:
    made = await create(stub, keys, PROFILES, labels=("production",))
    assert [(one.name, list(one.rules)) for one in made.profiles] == [
        ("base", ["words"]), ("finance", ["words", "money"]),
    ]  # fmt: skip
    assert made.mode == bundle_pb2.ENFORCEMENT_MODE_PERMISSIVE
    assert dict(made.agents) == {"Athena": "base", "Midas": "finance"}
    for agent, text in (("Athena", "gold [REDACTED:words]"), ("Midas", "[REDACTED:money] [REDACTED:words]")):
        judged = await check(stub, keys, "gold mesh", target=bundle_pb2.RULE_TARGET_OUTPUT, agent=agent)
        assert judged.text == text


async def test_an_attached_profile_is_in_force_for_its_agent_only(stub: Any, keys: Keys) -> None:
    await create(stub, keys, PROFILES, name="money")
    request = attachment_pb2.AttachBundleRequest(name="money@1.0.0", agent="Hermes", profile="finance")
    answer = await stub.AttachBundle(request, metadata=keys.metadata())
    assert [(one.agent, one.bundle, one.profile) for one in answer.attachments] == [
        ("Hermes", "money@1.0.0", "finance")
    ]
    output = bundle_pb2.RULE_TARGET_OUTPUT
    assert (await check(stub, keys, "gold", target=output, agent="Hermes")).text == "[REDACTED:money]"
    assert (await check(stub, keys, "gold", target=output, agent="Athena")).text == "gold"
    snapshot = await anext(aiter(stub.WatchBundles(pb.WatchBundlesRequest(), metadata=keys.metadata())))
    mine = next(one for one in snapshot.tenants if one.tenant_id == "acme")
    assert ([one.name for one in mine.bundles], [one.name for one in mine.attached]) == (["default"], ["money"])
    await stub.AttachBundle(
        attachment_pb2.AttachBundleRequest(name="money", agent="Hermes", remove=True), metadata=keys.metadata()
    )
    assert (await check(stub, keys, "gold", target=output, agent="Hermes")).text == "gold"


async def test_an_unknown_profile_or_bundle_cannot_be_attached(stub: Any, keys: Keys) -> None:
    await create(stub, keys)
    request = attachment_pb2.AttachBundleRequest(name="words", agent="Athena", profile="none")
    error = await refusal(stub.AttachBundle(request, metadata=keys.metadata()))
    assert (error.reason_name, error.field) == ("FIELD_INVALID", "profile")
    request = attachment_pb2.AttachBundleRequest(name="nowhere", agent="Athena")
    error = await refusal(stub.AttachBundle(request, metadata=keys.metadata()))
    assert error.reason_name == "BUNDLE_NOT_FOUND"
