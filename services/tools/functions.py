"""exec_mode "python": a function in the sandbox."""

from __future__ import annotations

from services.tools.answer import Outcome, Printed
from services.tools.artefacts import Artefacts
from services.tools.executor import Isolation, Work
from services.tools.fetching import Fetching
from services.tools.orders import FunctionCall
from services.tools.sandbox import Backend


class FunctionExecutor:
    """Runs Python functions, which reach nothing outside but what `fetch` brings those that were granted it."""

    reaches_out = False

    def __init__(self, sandbox: Backend, fetching: Fetching, artefacts: Artefacts | None = None) -> None:
        self._sandbox = sandbox
        self._fetching = fetching
        self._artefacts = artefacts

    @property
    def isolation(self) -> Isolation:
        return self._sandbox.isolation

    def check_room(self) -> None:
        self._sandbox.check_room()

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        function = work.tool.function
        assert function is not None  # noqa: S101 - registered so
        arguments = dict(work.arguments)
        if function.requires_context:
            arguments["context"] = dict(work.context)
        fetch = self._fetching.of(work)
        call = FunctionCall(
            code=function.code,
            entry_point=function.entry_point,
            arguments=arguments,
            memory_mib=function.memory_limit_mib,
            timeout=function.timeout,
            allowed_imports=function.allowed_imports if function.safe_mode else None,
            fetches=fetch is not None,
            attaches=self._artefacts is not None,
        )
        outcome = await self._sandbox.run(call, printed, fetch)
        return await self._artefacts.kept(work, outcome) if self._artefacts else outcome
