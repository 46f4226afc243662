"""YAML as JSON has it: texts, finite numbers, booleans, nothing, lists and mappings. Every fault has its line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import yaml

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where the wheel has it: twenty times as fast
_KNOWN: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_EXPONENT: Final = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+\Z")  # JSON's, which YAML 1.1 takes for texts
_LARGEST: Final = 2**53  # what JSON and Protobuf carry without loss


_PAIR: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)


def paired(document: str) -> str:
    """JSON writes what is beyond U+FFFF as two escapes, which YAML does not know: each pair becomes its character."""
    return _PAIR.sub(_character, document) if document.lstrip().startswith(("{", "[")) else document


def _character(pair: re.Match[str]) -> str:
    high, low = int(pair[2], 16), int(pair[3], 16)
    return pair[1] + chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)


class PlainLoader(_Safe):  # type: ignore[misc] # which of two it is shows at run time
    """Dates, `<<` and `=` are texts like others: a bundle has no use for what YAML makes of them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML reads this name
        first: [one for one in resolvers if one[0] in _KNOWN]
        for first, resolvers in _Safe.yaml_implicit_resolvers.items()
    }


def _number(read: Callable[[Any, yaml.Node], float]) -> Callable[[Any, yaml.Node], float]:
    def construct(loader: Any, node: yaml.Node) -> float:
        try:
            value = read(loader, node)
        except ValueError:
            raise _fault("this is no number", node) from None
        if not math.isfinite(value) if isinstance(value, float) else abs(value) > _LARGEST:
            raise _fault("a number is finite, and whole ones are at most 2^53", node)
        return value

    return construct


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[str, Any]:
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault("a key is a text", key)
    return {str(key.value): loader.construct_object(value, deep=True) for key, value in node.value}


def _fault(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
PlainLoader.add_constructor("tag:yaml.org,2002:int", _number(_Safe.construct_yaml_int))
PlainLoader.add_constructor("tag:yaml.org,2002:float", _number(_Safe.construct_yaml_float))
PlainLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
