"""A provider of each dialect at a real server that speaks its wire format as told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiohttp
import pytest

from services.inference.providers.contract import Provider
from services.inference.providers.http import Endpoint, HttpProvider
from services.inference.turns import Turns
from tests.support.openai_server import OpenAIServer, openai_server
from tests.support.wire import WIRES, Wire


@dataclass(frozen=True, slots=True)
class Spoken:
    """One dialect, its server and its provider."""

    wire: Wire
    server: OpenAIServer
    session: aiohttp.ClientSession
    turns: Turns | None = None

    @property
    def provider(self) -> Provider:
        endpoint = Endpoint("any", self.server.root, {"authorization": "Bearer k-1"})
        return self.wire.around(HttpProvider(endpoint, self.wire.dialect, self.session, turns=self.turns))

    def among(self, turns: Turns) -> Spoken:
        """The same beside other streams."""
        return replace(self, turns=turns)


@pytest.fixture(params=WIRES.values(), ids=WIRES.keys())
async def spoken(request: pytest.FixtureRequest) -> AsyncIterator[Spoken]:
    wire: Wire = request.param
    async with openai_server(wire.path) as server, aiohttp.ClientSession() as session:
        yield Spoken(wire, server, session)
