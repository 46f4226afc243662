"""A plug-in's provider: whatever it raises, its callers see the errors they know, and the chain goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from services.inference.errors import ProviderUnavailable, StreamBroken
from services.inference.providers.contract import Chunk, ModelCall, Provider
from shared.errors import MeshError
from shared.log import log


class Foreign:
    """A provider of somebody else's code. A fault of it is a failure of the provider, and in the log."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner
        self.name = inner.name

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        begun = False
        try:
            async with aclosing(self._inner.stream(call)) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
        except MeshError:
            raise
        except Exception as error:
            log.error("plugin.fault", provider=self.name, model=call.model, exc_info=error)
            what = f"the plug-in failed: {type(error).__name__}"
            raise (StreamBroken if begun else ProviderUnavailable)(what, provider=self.name) from error
