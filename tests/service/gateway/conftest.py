"""An edge for each module: a real Envoy, gateway with memory stores, and an identity provider beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.edge import Edge, running_edge
from tests.support.oidc import Provider, running_provider


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Provider]:
    async with running_provider() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(
        tmp_path_factory.mktemp("edge"),
        platform_tenant="platform",
        issuers=[
            {
                "issuer": provider.url("keycloak"),
                "audience": "agentnet",
                "tenant": "organization",
                "roles": "realm_access.roles",
                "role_names": {"mesh-admin": "admin"},
                "client_id": "dashboard",
            },
            {
                "issuer": provider.url("auth0") + "/",
                "audience": "https://agentnet.example/api",
                "tenant": "org_id",
                "tenants": {"org_Ab12": "acme"},
                "roles": "https://agentnet.example/roles",
            },
        ],
        limits={
            "stranger": {"per_second": 1000, "burst": 10_000},
            "method:IdentityService/GetCaller": {"per_second": 1000, "burst": 1000},
        },
    ) as running:
        yield running
