"""The dashboard in a real browser: a person signs in, by token and by way of an issuer, looks, and signs out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conformance.clients.test_browser import BROWSER, QUIET
from tests.support.edge import running_edge
from tests.support.oidc import running_provider

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.heavy,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]


_PAUSED = "{ turn_started: { turn_id: 't' } }, { session_waiting: { status: 'SESSION_STATUS_PAUSED' } }"
# What the page of a session says of logs in which it waited.
WAITED = {
    f"[{_PAUSED}]": "PAUSED",
    f"[{_PAUSED}, {{ message_injected: {{}} }}]": "PAUSED",
    f"[{_PAUSED}, {{ signal_received: {{ signal: 'resume' }} }}]": "RUNNING",
    f"[{_PAUSED}, {{ input_given: {{ input_id: 'i' }} }}]": "RUNNING",
    f"[{_PAUSED}, {{ turn_started: {{ turn_id: 'u' }} }}]": "RUNNING",
}
_QUESTION = "{ input_requested: { question: 'Why?', input: { id: 'i', turn_id: 't' } } }"
# What a log still asks people.
ASKED = {
    f"[{_QUESTION}]": "1",
    f"[{_QUESTION}, {{ input_given: {{ input_id: 'i' }} }}]": "0",
    f"[{_QUESTION}, {{ session_finished: {{ session: {{}} }} }}]": "0",
}
# A question, which takes an answer, and an approval, which takes a yes or a no.
ASKS = """
const asking = questions();
asking.show(new Map([["q", { id: "q", question: "<b>Why?</b>" }], ["a", { id: "a", kind: "INPUT_KIND_APPROVAL" }]]));
document.querySelector("main").append(asking.root);
return true;
"""


class Tab:
    """One page of a browser, by its DevTools protocol; what it complains of is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._asked = 0
        self.complaints: list[str] = []

    async def ask(self, method: str, **given: Any) -> Any:
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": given})
        while True:
            said = await self._socket.receive_json(timeout=30)
            if said.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.complaints.append(json.dumps(said["params"]))
            if said.get("id") == self._asked:
                return said.get("result")

    async def until(self, script: str) -> Any:
        """What it comes to, once that is true."""
        for _ in range(200):
            found = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
            if value := found["result"].get("value"):
                return value
            await asyncio.sleep(0.05)
        page = await self.ask("Runtime.evaluate", expression="location.href + document.body.innerText")
        raise AssertionError(f"never true: {script}; {page}; {self.complaints}")


@asynccontextmanager
async def browsing(folder: Path, url: str) -> AsyncIterator[Tab]:
    quiet = asyncio.subprocess.DEVNULL
    command = (str(BROWSER), *QUIET, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank")
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        async with aiohttp.ClientSession() as session:
            port = await _port(folder / "DevToolsActivePort")
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                page = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Runtime", "Log", "Page"):
                    await tab.ask(f"{domain}.enable")
                await tab.ask("Page.navigate", url=url)
                yield tab
    finally:
        process.terminate()
        await process.wait()


async def _port(file: Path) -> str:
    for _ in range(400):
        if file.is_file() and (text := file.read_text()):
            return text.splitlines()[0]
        await asyncio.sleep(0.05)
    raise TimeoutError(file)


async def test_a_person_signs_in_looks_and_signs_out(tmp_path: Path) -> None:
    async with running_provider() as provider:
        issuer = {
            "issuer": provider.url("keycloak"), "audience": "agentnet", "tenant": "organization",
            "roles": "realm_access.roles", "role_names": {"mesh-admin": "admin"}, "client_id": "dashboard",
        }  # fmt: skip
        async with running_edge(tmp_path / "edge", issuers=[issuer]) as edge:
            async with browsing(tmp_path / "browser", f"{edge.url}/dashboard") as tab:
                await tab.until("location.pathname === '/dashboard/sign-in' && !!document.getElementById('form')")
                fill = f"document.getElementById('credential').value = {json.dumps(edge.token())}"
                await tab.until(f"{fill}; document.getElementById('form').requestSubmit(); true")
                await tab.until("document.getElementById('caller')?.innerText.startsWith('ada')")
                await tab.until("document.querySelectorAll('main section').length === 6")
                assert await tab.until("document.cookie === ''"), "no script reads the cookie"
                for log, status in WAITED.items():
                    folded = f"import('/dashboard/session.js').then(({{ fold }}) => fold({{}}, {log}).session.status)"
                    assert await tab.until(folded) == f"SESSION_STATUS_{status}"
                for log, left in ASKED.items():
                    folded = (
                        f"import('/dashboard/session.js').then(({{ fold }}) => String(fold({{}}, {log}).inputs.size))"
                    )
                    assert await tab.until(folded) == left
                await tab.until(f"import('/dashboard/asking.js').then(({{ questions }}) => {{ {ASKS} }})")
                assert await tab.until("document.querySelectorAll('form.ask button').length") == 3
                await tab.until("document.getElementById('out').click(); true")
                # By way of the issuer, where the user agrees at once: the code comes back, and PKCE with it.
                button = "document.querySelector('#issuers button')"
                await tab.until(f"{button} && ({button}.click(), true)")
                await tab.until("document.getElementById('caller')?.innerText.startsWith('grace')")
                assert not [
                    one for one in tab.complaints if "Content Security Policy" in one or "exception" in one.lower()
                ]
