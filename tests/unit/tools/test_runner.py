"""What a function's own lines find while they run. Nothing here is hostile: it runs in this process."""

from __future__ import annotations

from typing import Any

import pytest

from services.tools import runner


def run(code: str, *, allowed: list[str] | None, **arguments: Any) -> dict[str, Any]:
    return runner.run({"code": code, "entry_point": "f", "arguments": arguments, "allowed_imports": allowed})


def test_a_function_gets_its_arguments_and_returns_json() -> None:
    assert run("def f(a, b):\n  return {'sum': a + b}\n", allowed=[], a=1, b=2) == {
        "status": "OK",
        "result": {"sum": 3},
    }


@pytest.mark.parametrize("line", ["import base64", "from base64 import b64encode", "import os.path"])
def test_an_import_that_is_not_allowed_fails_at_run_time_too(line: str) -> None:
    answer = run(f"def f():\n  {line}\n", allowed=["json"])
    assert (answer["status"], answer["trace"]) == ("USER_ERROR", "line 2 in f")
    assert "is not allowed" in answer["message"]


def test_an_allowed_module_imports_what_it_likes() -> None:
    assert run("def f():\n  import json.decoder\n  return json.dumps([1])\n", allowed=["json"])["result"] == "[1]"


@pytest.mark.parametrize("name", sorted(runner.FORBIDDEN))
def test_a_restricted_builtin_is_not_there(name: str) -> None:
    assert f"name '{name}' is not defined" in run(f"def f():\n  return {name}\n", allowed=[])["message"]
    assert run(f"def f():\n  return callable({name})\n", allowed=None)["result"] is True


async_code = "async def g():\n  return 1\nasync def f():\n  return await g() + 1\n"


def test_a_coroutine_is_awaited() -> None:
    assert run(async_code, allowed=[])["result"] == 2
