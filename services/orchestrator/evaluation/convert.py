"""Between the contract and evaluations: parses, rejects, answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

from google.protobuf import json_format

from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from services.orchestrator.convert import Listing, reference
from services.orchestrator.evaluation import document
from services.orchestrator.evaluation.evaluations import Wanted
from services.orchestrator.evaluation.suite import MAX_SCENARIOS, Suite
from shared import fields
from shared.errors import FieldRequired
from shared.paging import next_page_token, page

_DOCUMENT: Final = 1024 * 1024
_MAX_REPEATS: Final = 100
_MAX_AGENTS: Final = 64
_NAME: Final = 64


def wanted(request: pb.RunEvaluationRequest) -> Wanted:
    fields.at_most(len(request.agents), "agents", limit=_MAX_AGENTS)
    for agent, other in request.agents.items():
        reference(agent, f"agents[{agent}]")
        reference(other, f"agents[{agent}]")
    baseline_id = fields.identifier(request.baseline_id, "baseline_id") if request.baseline_id else ""
    repeats = int(fields.within(request.repeats, "repeats", low=0, high=_MAX_REPEATS))
    request_id = fields.request_id(request.request_id)
    return Wanted(_suite(request), dict(request.agents), repeats, baseline_id, request_id)


def _suite(request: pb.RunEvaluationRequest) -> Suite:
    text = fields.required(request.suite, "suite", limit=_DOCUMENT)
    if not request.scenarios:
        return document.read(text)
    fields.at_most(len(request.scenarios), "scenarios", limit=MAX_SCENARIOS)
    given: dict[str, Any] = json_format.MessageToDict(request, preserving_proto_field_name=True)
    scenarios = [_scenario(scenario) for scenario in given["scenarios"]]
    return document.parsed({"suite": text, "scenarios": scenarios, "references": given.get("references", {})})


def _scenario(given: dict[str, Any]) -> dict[str, Any]:
    """JSON writes 64-bit numbers as text."""
    for criterion in given.get("success_criteria", ()):
        if "max_micros_usd" in criterion:
            criterion["max_micros_usd"] = int(criterion["max_micros_usd"])
    return given


def listing(request: pb.ListEvaluationsRequest) -> tuple[str, Listing]:
    suite = fields.text(request.suite, "suite", limit=_NAME)
    scope = f"evaluations|{suite}"
    return suite, Listing(page(request.page_size, request.page_token, scope=scope), scope)


def listed(found: Sequence[pb.Evaluation], asked: Listing) -> pb.ListEvaluationsResponse:
    shown = found[: asked.page.size]
    last = shown[-1] if len(found) > len(shown) else None
    more = (last.start_time.ToDatetime(UTC).isoformat(), last.id) if last else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListEvaluationsResponse(evaluations=shown, next_page_token=token)


def compare(request: pb.CompareEvaluationsRequest) -> tuple[str, pb.Evaluation | str]:
    candidate_id = fields.identifier(request.candidate_id, "candidate_id")
    if request.WhichOneof("before") == "baseline":
        if not request.baseline.scores:
            raise FieldRequired("baseline.scores")
        return candidate_id, request.baseline
    return candidate_id, fields.identifier(request.baseline_id, "baseline_id")
