"""The driver that the settings choose, started for as long as the service runs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Protocol

from services.orchestrator.drivers.postgres import PostgresDriver, draining, listen
from services.orchestrator.drivers.runs import Runs
from services.orchestrator.leases_postgres import Renewal
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.store import LeaseStore, Taker
from shared.tasks import supervised


class Accepting(Protocol):
    """Accepts runs, and may leave them to a driver at once."""

    def driven_by(self, taker: Taker) -> None: ...


async def start_driver(
    settings: OrchestratorSettings,
    stack: AsyncExitStack,
    runs: Runs,
    leases: LeaseStore,
    owner: str,
    *,
    accepting: Accepting,
) -> None:
    """Drives runs until the stack unwinds; then all that is held is given back."""
    if settings.driver == "temporal":
        from services.orchestrator.drivers import temporal  # noqa: PLC0415 - an optional extra

        await temporal.start(settings, stack, runs, leases, owner)
    else:
        accepting.driven_by(await _postgres(settings, stack, runs, leases, owner))


async def _postgres(
    settings: OrchestratorSettings, stack: AsyncExitStack, runs: Runs, leases: LeaseStore, owner: str
) -> PostgresDriver:
    driver = PostgresDriver(leases, runs, owner, settings.lease_ttl, settings.poll, settings.max_sessions)
    dsn = settings.driver_dsn.get_secret_value()
    renewal = stack.enter_context(Renewal(dsn, owner, ttl=settings.lease_ttl, driven=driver.driven))
    await stack.enter_async_context(draining(driver))
    await stack.enter_async_context(supervised("guard", lambda: driver.guard(renewal)))
    await stack.enter_async_context(supervised("listen", lambda: listen(dsn, driver)))
    await stack.enter_async_context(supervised("claim", driver.claim))
    return driver
