"""Between the contract and what is done with logs: parses, rejects."""

from __future__ import annotations

from typing import Final

from agentnet.orchestrator.v1 import history_pb2, session_pb2
from agentnet.orchestrator.v1 import history_service_pb2 as pb
from services.orchestrator.convert import reference
from services.orchestrator.errors import DocumentInvalid
from services.orchestrator.forks.fork import Fork
from shared import fields
from shared.errors import FieldRequired, InvalidArgument

_NAME: Final = 255
_PROMPT: Final = 32_768
_MAX_BUNDLES: Final = 16
_MAX_AGENTS: Final = 16
_MAX_ROUNDS: Final = 50
_DOCUMENT_BYTES: Final = 16 * 1024 * 1024


def session_id(value: str) -> str:
    return fields.identifier(value, "session_id")


def fork(request: pb.ForkSessionRequest) -> tuple[str, Fork]:
    """The source and what is different."""
    if request.sequence < 0:
        raise InvalidArgument("sequence must not be negative", field="sequence")
    _overrides(request.overrides)
    return session_id(request.session_id), Fork(request.sequence, request.overrides, request.side_effects)


def _overrides(found: session_pb2.SessionOverrides) -> None:
    fields.text(found.model, "overrides.model", limit=_NAME)
    fields.at_most(len(found.bundles), "overrides.bundles", limit=_MAX_BUNDLES)
    for place, bundle in enumerate(found.bundles):
        fields.required(bundle, f"overrides.bundles[{place}]", limit=_NAME)
    for name, limit in (("system_prompts", _MAX_AGENTS + 1), ("agents", _MAX_AGENTS)):
        fields.at_most(len(getattr(found, name)), f"overrides.{name}", limit=limit)
    for name, prompt in found.system_prompts.items():
        fields.required(prompt, f"overrides.system_prompts[{name}]", limit=_PROMPT)
    for name, instead in found.agents.items():
        reference(instead, f"overrides.agents[{name}]")
    fields.within(found.max_rounds, "overrides.max_rounds", low=0, high=_MAX_ROUNDS)


def document(request: pb.ImportSessionRequest) -> history_pb2.SessionDocument:
    if not request.HasField("document"):
        raise FieldRequired("document")
    if (size := request.document.ByteSize()) > _DOCUMENT_BYTES:
        raise DocumentInvalid(
            f"the document has {size} bytes; at most {_DOCUMENT_BYTES} are taken in", field="document"
        )
    return request.document
