"""exec_mode "wasm": a WebAssembly module in wasmtime, in the sandbox."""

from __future__ import annotations

from datetime import timedelta

from services.tools.answer import Outcome, Printed
from services.tools.executor import Isolation, Work
from services.tools.http_api import target_of
from services.tools.orders import ModuleCall
from services.tools.sandbox import Sandbox


class ModuleExecutor:
    """Runs modules, which reach nothing outside."""

    reaches_out = False

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    @property
    def isolation(self) -> Isolation:
        return self._sandbox.isolation

    def check_room(self) -> None:
        self._sandbox.check_room()

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        target = target_of(work)
        call = ModuleCall(
            module=target["module"],
            arguments=work.arguments,
            memory_mib=target["memory_limit_mib"],
            fuel=target["fuel"],
            timeout=timedelta(seconds=target["timeout"]),
        )
        return await self._sandbox.run(call, printed)
