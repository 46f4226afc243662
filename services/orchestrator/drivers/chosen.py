"""The driver that the settings choose, started for as long as the service runs."""

from __future__ import annotations

from contextlib import AsyncExitStack

from services.orchestrator.drivers.postgres import PostgresDriver, draining, listen
from services.orchestrator.drivers.runs import Runs
from services.orchestrator.leases_postgres import Renewal
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.store import LeaseStore
from shared.tasks import supervised


async def start_driver(
    settings: OrchestratorSettings, stack: AsyncExitStack, runs: Runs, leases: LeaseStore, owner: str
) -> None:
    """Drives runs until the stack unwinds; then all that is held is given back."""
    if settings.driver == "temporal":
        from services.orchestrator.drivers import temporal  # noqa: PLC0415 - an optional extra

        await temporal.start(settings, stack, runs, leases, owner)
    else:
        await _postgres(settings, stack, runs, leases, owner)


async def _postgres(
    settings: OrchestratorSettings, stack: AsyncExitStack, runs: Runs, leases: LeaseStore, owner: str
) -> None:
    driver = PostgresDriver(leases, runs, owner, settings.lease_ttl, settings.poll, settings.max_sessions)
    dsn = settings.driver_dsn.get_secret_value()
    renewal = stack.enter_context(Renewal(dsn, owner, ttl=settings.lease_ttl, driven=driver.driven))
    await stack.enter_async_context(draining(driver))
    await stack.enter_async_context(supervised("guard", lambda: driver.guard(renewal)))
    await stack.enter_async_context(supervised("listen", lambda: listen(dsn, driver)))
    await stack.enter_async_context(supervised("claim", driver.claim))
