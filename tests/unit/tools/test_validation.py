"""The first layer: early and exact errors about code that may not be registered."""

from __future__ import annotations

import pytest

from services.tools.errors import FunctionRejected
from services.tools.validation import DEFAULT_IMPORTS, validate

ORDINARY = """
import json
from collections import Counter
from datetime import datetime


class Tally:
    def __init__(self, words):
        super().__init__()
        self.words = Counter(words)


async def count(text):
    return json.dumps(Tally(text.split()).words, default=str)
"""

REJECTED = {
    "an import": ("def f():\n    import os\n", "line 2: importing os is not allowed"),
    "an import from": ("from subprocess import run\ndef f(): pass\n", "line 1: importing subprocess is not allowed"),
    "a relative import": ("from . import x\ndef f(): pass\n", "line 1: importing . is not allowed"),
    "a submodule": ("import os.path\ndef f(): pass\n", "line 1: importing os.path is not allowed"),
    "eval": ("def f():\n    return eval('1')\n", "line 2: eval is not allowed"),
    "an alias of exec": ("run = exec\ndef f(): pass\n", "line 1: exec is not allowed"),
    "open": ("def f():\n\n    return open('/etc/passwd')\n", "line 3: open is not allowed"),
    "__import__": ("def f():\n    return __import__('os')\n", "line 2: __import__ is not allowed"),
    "__builtins__": ("def f():\n    return __builtins__['open']\n", "line 2: __builtins__ is not allowed"),
    "a walk to subclasses": (
        "def f():\n    return ().__class__.__base__.__subclasses__()\n",
        "the attribute __",
    ),
    "a walk by name": ("def f():\n    return getattr((), '__class__')\n", "line 2: the attribute __class__"),
    "globals of a function": ("def f():\n    return f.__globals__\n", "line 2: the attribute __globals__"),
    "syntax": ("def f(:\n", "line 1: the code does not parse"),
    "a missing entry point": ("def g(): pass\n", "line 1: the code defines no function f"),
    "deep nesting": ("x = " + "-" * 100_000 + "1\ndef f(): pass\n", "line 1: the code is nested too deeply"),
    "a long chain": ("x = a" + ".b" * 50_000 + "\ndef f(): pass\n", "line 1: the code is nested too deeply"),
}


@pytest.mark.parametrize(("code", "message"), REJECTED.values(), ids=REJECTED.keys())
def test_what_is_not_allowed_is_named_with_its_line(code: str, message: str) -> None:
    with pytest.raises(FunctionRejected) as raised:
        validate(code, "f", allowed_imports=DEFAULT_IMPORTS)
    assert message in raised.value.message
    assert raised.value.field == "tool.function.code"
    assert raised.value.facts["line"].isdecimal()


def test_an_entry_point_that_is_a_path_is_no_function() -> None:
    with pytest.raises(FunctionRejected, match="the code defines no function"):
        validate("def f(): pass\n", "../../etc/cron.d/x", allowed_imports=DEFAULT_IMPORTS)


def test_the_earliest_line_is_named_first() -> None:
    code = "def f():\n    if True:\n        open('x')\n\n\nimport os\n"
    with pytest.raises(FunctionRejected, match="line 3: open"):
        validate(code, "f", allowed_imports=DEFAULT_IMPORTS)


def test_ordinary_code_is_accepted() -> None:
    validate(ORDINARY, "count", allowed_imports=DEFAULT_IMPORTS)


def test_a_tool_may_be_given_more_modules() -> None:
    validate("import statistics\ndef f(): pass\n", "f", allowed_imports=("statistics",))


def test_a_lookalike_of_a_forbidden_name_is_told_by_what_python_makes_of_it() -> None:
    """Python reads identifiers in the form NFKC: a full-width `open` is open."""
    with pytest.raises(FunctionRejected, match="open is not allowed"):
        validate("def f():\n    return \uff4fpen('x')\n", "f", allowed_imports=())
