"""Monitors of one's own: an entry point in the group `agentnet.monitors`, named by a rule of the type `custom`.

The entry point is a function that takes the rule's params and returns a Monitor; `docs/policy.md` has the template.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol

from shared.errors import FailedPrecondition, MeshError, Reason
from shared.log import log

GROUP: Final = "agentnet.monitors"
_NEAR: Final = re.compile(r"[\s,]{1,3}")


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a monitor says of a sentence it does not let pass: how sure it is, 0 to 1, and why.

    `spans` are the stretches it means, first and behind last character, in order; without any it means the whole.
    """

    score: float
    rationale: str
    spans: tuple[tuple[int, int], ...] = ()


class Monitor(Protocol):
    """Judges one sentence at a time. It is called for many sentences at once and must not keep any."""

    async def judge(self, sentence: str) -> Suspicion | None:
        """None when the sentence may pass."""


class PluginUnavailable(FailedPrecondition):
    """The rule names a plug-in that is not installed, does not load or fails. Install or mend it where policy runs."""

    reason = Reason.ERROR_REASON_PLUGIN_UNAVAILABLE


def load(name: str, params: Mapping[str, Any]) -> Monitor:
    """The plug-in's monitor with these params, made once in a process. Raises PluginUnavailable."""
    return _monitor(name, json.dumps(dict(params), sort_keys=True))


async def judge(name: str, params: Mapping[str, Any], sentence: str) -> Suspicion | None:
    """What the plug-in says of a sentence. Raises PluginUnavailable whatever its code raises; the log says where, and
    neither tells anything of the sentence.
    """
    monitor = load(name, params)
    try:
        found: object = await monitor.judge(sentence)
    except MeshError:
        raise
    except Exception as error:  # noqa: BLE001 - somebody else's code
        what = type(error).__name__
        frame = traceback.extract_tb(error.__traceback__)[-1]
        log.error("plugin.fault", plugin=name, error=what, file=frame.filename, line=frame.lineno)
        raise PluginUnavailable(f"the monitor plug-in {name} failed: {what}", plugin=name) from None
    if found is None or isinstance(found, Suspicion):
        return found
    what = type(found).__name__
    raise PluginUnavailable(f"the monitor plug-in {name} gave a {what}, not a Suspicion or None", plugin=name)


@lru_cache(maxsize=128)
def _monitor(name: str, params: str) -> Monitor:
    factory = _factory(name)
    try:
        monitor: Monitor = factory(json.loads(params))
    except ImportError as error:
        raise PluginUnavailable(f"the monitor plug-in {name} lacks a package: {error}", plugin=name) from None
    except KeyError as error:
        raise PluginUnavailable(f"the monitor plug-in {name} misses {error} in its params", plugin=name) from None
    except Exception as error:  # noqa: BLE001 - somebody else's code
        raise PluginUnavailable(f"the monitor plug-in {name} refuses its params: {error}", plugin=name) from None
    return monitor


@lru_cache(maxsize=1)
def _plugins() -> Mapping[str, EntryPoint]:
    """By name, as they were when first asked for: every package that is installed is looked at."""
    return {found.name: found for found in entry_points(group=GROUP)}


@lru_cache(maxsize=128)
def _factory(name: str) -> Any:
    if name not in _plugins():
        raise PluginUnavailable(f"no monitor plug-in {name} is installed", plugin=name)
    try:
        return _plugins()[name].load()
    except Exception as error:  # noqa: BLE001 - somebody else's code
        raise PluginUnavailable(f"the monitor plug-in {name} does not load: {error}", plugin=name) from None


def held(kinds: Sequence[str]) -> str:
    """Why a text that holds these kinds of things is suspected, in words."""
    return f"it holds {' and '.join(f'an {kind}' if kind[0] in 'aeio' else f'a {kind}' for kind in kinds)}"


def joined(text: str, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """In order; those that touch, or have only a comma between them, are one: a street and its city."""
    whole: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if whole and (start <= whole[-1][1] or _NEAR.fullmatch(text, whole[-1][1], start)):
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((start, end))
    return tuple(whole)


def chosen(params: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """The kinds that `entities` of a rule names, all without any. Raises ValueError for one that is not known."""
    kinds = list(map(str, params.get("entities") or known))
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise ValueError(f"{unknown[0]} is not known; known: {', '.join(known)}")
    return kinds
