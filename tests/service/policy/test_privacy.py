"""Personal data: masked and unmasked again for those who may, cut from exports by role, every look audited."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from agentnet.policy.v1 import privacy_service_pb2 as pb
from services.policy.audit import AuditFilter
from tests.service.policy.calls import refusal
from tests.support.identity import Keys
from tests.support.policy import PolicyParts

TEXT = "Write to ada@example.com, card 4111 1111 1111 1111, again ada@example.com."
RECORD = {
    "note": "ssn 123-45-6789, key AKIAIOSFODNN7EXAMPLE", "password": "hunter2",
    "inner": [{"mail": "ada@example.com", "api_key": "x"}], "count": 3,
}  # fmt: skip


async def masked(privacy: Any, keys: Keys, text: str = TEXT, tenant: str = "acme", **more: Any) -> Any:
    return await privacy.Pseudonymize(pb.PseudonymizeRequest(text=text, **more), metadata=keys.metadata(tenant))


async def exported(privacy: Any, keys: Keys, roles: tuple[str, ...], role: str = "") -> Any:
    record = json_format.ParseDict(RECORD, struct_pb2.Struct())
    request = pb.RedactExportRequest(records=[record], role=role)
    return await privacy.RedactExport(request, metadata=keys.metadata(roles=roles))


async def test_a_text_goes_out_masked_and_comes_back_whole(privacy: Any, keys: Keys, parts: PolicyParts) -> None:
    out = await masked(privacy, keys)
    assert "ada" not in out.text
    assert "4111" not in out.text
    assert dict(out.replaced) == {"email": 2, "card": 1}
    first, second = [word.strip(".,") for word in out.text.split() if word.startswith("[EMAIL_")]
    assert first == second
    answer = f"I wrote to {first} and not to [EMAIL_000000000000]."
    request = pb.RevealPseudonymsRequest(text=answer)
    shown = await privacy.RevealPseudonyms(request, metadata=keys.metadata(roles=("admin",)))
    assert (shown.text, shown.revealed) == ("I wrote to ada@example.com and not to [EMAIL_000000000000].", 1)
    trail = await parts.governance.entries("acme", AuditFilter(act="privacy.reveal"), after=0, limit=10)
    assert [one.detail["values"] for one in trail] == [1]


async def test_only_an_admin_sees_what_pseudonyms_stand_for(privacy: Any, keys: Keys) -> None:
    text = (await masked(privacy, keys)).text
    call = privacy.RevealPseudonyms(pb.RevealPseudonymsRequest(text=text), metadata=keys.metadata(roles=("auditor",)))
    assert (await refusal(call)).reason_name == "EXPORT_NOT_ALLOWED"


async def test_tenants_have_pseudonyms_of_their_own(privacy: Any, keys: Keys) -> None:
    ours, theirs = (await masked(privacy, keys)).text, (await masked(privacy, keys, tenant="globex")).text
    assert ours != theirs
    request = pb.RevealPseudonymsRequest(text=ours)
    shown = await privacy.RevealPseudonyms(request, metadata=keys.metadata("globex", roles=("admin",)))
    assert (shown.text, shown.revealed) == (ours, 0)


async def test_only_the_kinds_asked_for_are_masked(privacy: Any, keys: Keys) -> None:
    out = await masked(privacy, keys, kinds=["card"])
    assert dict(out.replaced) == {"card": 1}
    assert (await refusal(masked(privacy, keys, kinds=["shoe_size"]))).field == "kinds"


async def test_what_is_stored_of_a_value_is_sealed(privacy: Any, keys: Keys, parts: PolicyParts) -> None:
    await masked(privacy, keys)
    assert parts.governance._values
    assert all(b"ada" not in sealed for sealed in parts.governance._values.values())


@pytest.mark.parametrize(
    ("role", "note", "mail"),
    [
        ("admin", "ssn 123-45-6789, key [AWS_ACCESS_KEY]", "ada@example.com"),
        ("auditor", "ssn [SSN], key [AWS_ACCESS_KEY]", "[EMAIL]"),
        ("tenant_user", "ssn [SSN], key [AWS_ACCESS_KEY]", "[EMAIL]"),
    ],
)
async def test_an_export_holds_what_the_role_may_take_out(
    privacy: Any, keys: Keys, parts: PolicyParts, role: str, note: str, mail: str
) -> None:
    answer = await exported(privacy, keys, (role,))
    (record,) = (json_format.MessageToDict(one) for one in answer.records)
    assert record == {"note": note, "inner": [{"mail": mail}], "count": 3}
    assert answer.cut["field"] == 2
    trail = await parts.governance.entries("acme", AuditFilter(act="export.redact"), after=0, limit=10)
    assert [(one.subject, one.detail["records"]) for one in trail] == [(role, 1)]


async def test_an_operator_gets_pseudonyms_that_an_admin_can_undo(privacy: Any, keys: Keys) -> None:
    (record,) = (json_format.MessageToDict(one) for one in (await exported(privacy, keys, ("operator",))).records)
    mail = record["inner"][0]["mail"]
    assert mail.startswith("[EMAIL_")
    shown = await privacy.RevealPseudonyms(
        pb.RevealPseudonymsRequest(text=mail), metadata=keys.metadata(roles=("admin",))
    )
    assert shown.text == "ada@example.com"


async def test_who_may_see_more_exports_for_those_who_see_less(privacy: Any, keys: Keys) -> None:
    answer = await exported(privacy, keys, ("admin",), role="auditor")
    assert json_format.MessageToDict(answer.records[0])["inner"] == [{"mail": "[EMAIL]"}]
    assert (await refusal(exported(privacy, keys, ("operator",), role="admin"))).reason_name == "EXPORT_NOT_ALLOWED"
    assert (await refusal(exported(privacy, keys, ("admin",), role="king"))).reason_name == "EXPORT_NOT_ALLOWED"


async def test_nobody_exports_as_a_role_they_have_not(privacy: Any, keys: Keys, parts: PolicyParts) -> None:
    error = await refusal(exported(privacy, keys, ("auditor",), role="admin"))
    assert error.reason_name == "EXPORT_NOT_ALLOWED"
    trail = await parts.governance.entries("acme", AuditFilter(act="export.refuse"), after=0, limit=10)
    assert len(trail) == 1
