"""What docs/tools.md tells a newcomer to do, done: the template becomes a working tool, and fast."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from agentnet.tools.v1 import tool_pb2
from tests.service.tools.calls import invocation, register
from tests.support.identity import Keys

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tools.md"
HALF_AN_HOUR = 30 * 60


def template() -> dict[str, Any]:
    found = re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    wanted: dict[str, Any] = json.loads(found[1])
    return wanted


async def test_the_documented_template_becomes_a_working_tool(stub: Any, keys: Keys) -> None:
    began, wanted = time.monotonic(), template()
    await register(stub, keys, json_format.ParseDict(wanted, tool_pb2.Tool()))
    for example in wanted["examples"]:
        request = invocation(wanted["name"], example["arguments"], agent="Athena")
        answer = await stub.InvokeTool(request, metadata=keys.metadata())
        assert json_format.MessageToDict(answer.finished.result) == example["result"]
    assert time.monotonic() - began < HALF_AN_HOUR / 60, "the mesh's part of it is a matter of seconds"


def test_the_page_names_every_mode_that_is_served() -> None:
    from services.tools.convert import MODES

    assert {mode for mode in MODES if f"`{mode}`" not in PAGE.read_text()} == set()
