"""The first layer: what code may not even say. It gives early, exact errors; the boundary is the operating system."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Final

from services.tools.errors import FunctionRejected
from services.tools.runner import FORBIDDEN

DEFAULT_IMPORTS: Final = ("json", "datetime", "math", "re", "collections", "itertools", "functools")
# What ordinary classes and functions say; every other dunder is a way out of them.
_HARMLESS: Final = frozenset({"__init__", "__name__", "__qualname__", "__doc__", "__post_init__", "__eq__", "__hash__"})
_BY_NAME: Final = frozenset({"getattr", "setattr", "delattr", "hasattr"})


def validate(code: str, entry_point: str, *, allowed_imports: Collection[str]) -> None:
    """Raises FunctionRejected, with its line, for the first thing that is not allowed."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise _rejected(f"the code does not parse: {error.msg}", error.lineno or 1) from None
    except (RecursionError, MemoryError):
        raise _rejected("the code is nested too deeply", 1) from None
    for node in sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0)):
        _check(node, allowed_imports)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if entry_point not in {node.name for node in functions}:
        raise _rejected(f"the code defines no function {entry_point}", 1)


def is_async(code: str, entry_point: str) -> bool:
    """Whether the entry point is a coroutine function. Raises FunctionRejected for code that does not parse."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, RecursionError, MemoryError):
        raise _rejected("the code does not parse", 1) from None
    named = [node for node in tree.body if getattr(node, "name", "") == entry_point]
    return bool(named) and isinstance(named[-1], ast.AsyncFunctionDef)


def _check(node: ast.AST, allowed: Collection[str]) -> None:
    match node:
        case ast.Import(names=names):
            for name in names:
                _check_import(name.name, node.lineno, allowed)
        case ast.ImportFrom(module=module, level=level):
            _check_import("." * level + (module or ""), node.lineno, allowed)
        case ast.Name(id=name) if name in FORBIDDEN or _leads_out(name):
            raise _rejected(f"{name} is not allowed", node.lineno)
        case ast.Attribute(attr=name) if _leads_out(name):
            raise _rejected(f"the attribute {name} is not allowed", node.lineno)
        case ast.Call(func=ast.Name(id=way), args=[_, ast.Constant(value=str(name)), *_]) if way in _BY_NAME:
            if _leads_out(name):
                raise _rejected(f"the attribute {name} is not allowed", node.lineno)


def _leads_out(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in _HARMLESS


def _check_import(module: str, line: int, allowed: Collection[str]) -> None:
    if module.partition(".")[0] not in allowed:
        raise _rejected(f"importing {module} is not allowed; allowed are {', '.join(sorted(allowed))}", line)


def _rejected(problem: str, line: int) -> FunctionRejected:
    return FunctionRejected(f"line {line}: {problem}", field="tool.function.code", line=str(line))
