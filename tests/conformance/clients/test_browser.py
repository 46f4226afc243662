"""gRPC-Web from a page in a real browser: Connect's client for the web, its preflights, a stream, errors in trailers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.edge import ROOT, Edge
from tests.support.node import NODE

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.heavy,
    pytest.mark.skipif(not (NODE / "node_modules").is_dir(), reason="`make test-clients` installs them"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
# A host of nobody's that leads here: to the edge a page of another origin.
ELSEWHERE = "page.example"


async def shown(edge: Edge, host: str, folder: Path) -> Any:
    """What the page says when the browser has it from this host."""
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def given(_request: web.Request) -> web.Response:
        return web.json_response({"base": edge.url, "token": edge.token()})

    async def tell(request: web.Request) -> web.Response:
        told.set_result(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_get("/given", given)
    app.router.add_post("/told", tell)
    app.router.add_get("/descriptors", _file(ROOT / "gen" / "descriptors" / "agentnet.binpb"))
    app.router.add_get("/", _file(NODE / "browser.html"))
    app.router.add_static("/node_modules", NODE / "node_modules")
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://{host}:{runner.addresses[0][1]}/"
    mapped = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"
    command = (str(BROWSER), *QUIET, mapped, f"--user-data-dir={folder}", "--remote-debugging-port=0", address)
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        return await asyncio.wait_for(told, 60)
    finally:
        process.terminate()
        await process.wait()
        await runner.cleanup()


def _file(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return answer


async def test_a_page_speaks_grpc_web(edge: Edge, tmp_path: Path) -> None:
    assert await shown(edge, "127.0.0.1", tmp_path) == {"texts": ["Say ", "hello."], "refused": 16, "missing": 5}


async def test_a_page_of_an_origin_that_is_not_allowed_reads_nothing(edge: Edge, tmp_path: Path) -> None:
    assert "failed" in await shown(edge, ELSEWHERE, tmp_path)
