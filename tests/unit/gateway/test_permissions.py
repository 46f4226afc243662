"""Who may call what is said in the contract, and a method that does not say is refused at the start."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool

from agentnet.common.v1 import permission_pb2
from services.gateway import contract
from services.gateway.permissions import PermissionMissing, permissions

FOUND = permissions(contract.services())


def service_with(options: MethodOptions):
    file = FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.message_type.add(name="M")
    service = file.service.add(name="TaskGraphService")
    service.method.add(name="Do", input_type=".t.M", output_type=".t.M").options.CopyFrom(options)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("t.TaskGraphService")


def test_a_method_without_a_permission_does_not_start() -> None:
    with pytest.raises(PermissionMissing, match="TaskGraphService"):
        permissions([service_with(MethodOptions())])


def test_a_method_has_the_roles_and_the_scope_its_annotation_says() -> None:
    options = MethodOptions(idempotency_level=MethodOptions.NO_SIDE_EFFECTS)
    options.Extensions[permission_pb2.permission] = permission_pb2.PERMISSION_OVERSEERS
    found = permissions([service_with(options)])["/t.TaskGraphService/Do"]
    assert (found.roles, found.scope, found.open) == ({"admin", "operator", "auditor"}, "task_graph:read", False)


@pytest.mark.parametrize(
    ("path", "roles"),
    [
        ("/agentnet.orchestrator.v1.SessionService/StartSession", {"admin", "operator", "tenant_user"}),
        ("/agentnet.gateway.v1.KeyService/CreateKey", {"admin"}),
        ("/agentnet.policy.v1.PolicyService/ListViolations", {"admin", "operator", "auditor"}),
        ("/agentnet.cost.v1.CostService/Settle", set()),
    ],
)
def test_the_contracts_methods_are_for_the_roles_that_need_them(path: str, roles: set[str]) -> None:
    assert FOUND[path].roles == roles


def test_only_health_documents_and_the_sign_in_are_open() -> None:
    assert {path.split("/")[1].rpartition(".")[2] for path, found in FOUND.items() if found.open} == {
        "HealthService",
        "DocumentService",
        "A2aService",
        "DashboardService",
    }
    assert {path.rpartition("/")[2] for path, found in FOUND.items() if found.open and "Dashboard" in path} == {
        "GetSignIn",
        "GetSignInIssuers",
        "SignInWithCode",
    }
    assert [path for path, found in FOUND.items() if found.open and "A2a" in path] == [
        "/agentnet.gateway.v1.A2aService/GetPublicAgentCard"
    ]
