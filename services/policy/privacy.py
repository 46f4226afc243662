"""Personal data: found by form, replaced by pseudonyms that can be undone, or cut from what leaves the mesh."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from services.policy.audit import AuditLog
from services.policy.errors import ExportNotAllowed
from services.policy.vault import Vault
from shared.errors import InvalidArgument
from shared.monitors import pii
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target, Verdict
from shared.monitors.stream import CompiledRules, compile_rules, judge

EXPORTING: Final = ("tenant_user", "auditor", "operator", "admin")  # least first
FIELD: Final = "field"
_PURPOSE: Final = "pseudonym"
_DIGITS: Final = 12
_PSEUDONYM: Final = re.compile(r"\[([A-Z]+)_([0-9a-f]{12})\]")
_TELLING: Final = re.compile(
    r"pass(?:word|phrase|wd)|secret|api_?key|private_?key|credential|authorization|cookie|(?:access|refresh|id)_?token",
    re.IGNORECASE,
)


class PseudonymStore(Protocol):
    """Where values are kept, sealed."""

    async def keep_values(self, tenant: str, sealed: Mapping[str, bytes]) -> None:
        """Stores those that are new, by pseudonym."""

    async def values(self, tenant: str, pseudonyms: Collection[str]) -> Mapping[str, bytes]:
        """Those that are known."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A text after it was masked or cut, and how often, by kind."""

    text: str
    counts: Mapping[str, int]


class Privacy:
    """Pseudonyms and exports of every tenant."""

    def __init__(self, store: PseudonymStore, vault: Vault, audit: AuditLog) -> None:
        self._store = store
        self._vault = vault
        self._audit = audit
        self._everything = _finder(RuleType.PII)
        self._keys = _finder(RuleType.SECRET)

    async def pseudonymize(self, tenant: str, text: str, kinds: Sequence[str] = ()) -> Masked:
        """The text with pseudonyms. Raises InvalidArgument for a kind that is not known."""
        unknown = sorted(set(kinds) - set(pii.DETECTORS))
        if unknown:
            raise InvalidArgument(f"{unknown[0]} is not known; known: {', '.join(pii.DETECTORS)}", field="kinds")
        finder = _finder(RuleType.PII, tuple(kinds)) if kinds else self._everything
        key, values = self._vault.key(tenant, _PURPOSE), dict[str, str]()

        def named(kind: str, value: str) -> str:
            name = _pseudonym(key, kind, value)
            values[name] = value
            return name

        masked = _replaced(text, finder, named)
        if values:
            sealed = {name: self._vault.seal(tenant, _PURPOSE, value) for name, value in values.items()}
            await self._store.keep_values(tenant, sealed)
        return masked

    async def reveal(self, tenant: str, by: str, roles: Collection[str], text: str) -> Masked:
        """The text with values, for the role admin. Raises ExportNotAllowed."""
        if "admin" not in roles:
            await self._audit.record(tenant, by, "privacy.refuse", "reveal")
            raise ExportNotAllowed("only the role admin may see what pseudonyms stand for", role="admin")
        names = {found.group() for found in _PSEUDONYM.finditer(text)}
        known = await self._store.values(tenant, names) if names else {}
        values = {name: self._vault.open(tenant, _PURPOSE, sealed) for name, sealed in known.items()}
        await self._audit.record(tenant, by, "privacy.reveal", "text", values=len(values))
        return Masked(_PSEUDONYM.sub(lambda found: values.get(found.group(), found.group()), text), {"": len(values)})

    async def export(
        self, tenant: str, by: str, roles: Collection[str], records: Sequence[Mapping[str, Any]], *, role: str
    ) -> tuple[list[Any], Counter[str]]:
        """The records as the role may take them out, and what was cut. Raises ExportNotAllowed."""
        held = [one for one in EXPORTING if one in roles]
        reader = role or next(iter(held), "")
        if not held or reader not in EXPORTING[: EXPORTING.index(held[-1]) + 1]:
            await self._audit.record(tenant, by, "export.refuse", role or "(none)")
            raise ExportNotAllowed(f"the caller may not export as {role or 'any role'}", role=role)
        cut: Counter[str] = Counter()
        shown = [await self._cut(tenant, record, reader, cut) for record in records]
        await self._audit.record(tenant, by, "export.redact", reader, records=len(shown), cut=dict(cut))
        return shown, cut

    async def _cut(self, tenant: str, value: Any, reader: str, cut: Counter[str]) -> Any:
        match value:
            case str():
                return await self._cut_text(tenant, value, reader, cut)
            case list():
                return [await self._cut(tenant, part, reader, cut) for part in value]
            case dict():
                telling = [name for name in value if _TELLING.search(name)]
                cut[FIELD] += len(telling)
                kept = {name: part for name, part in value.items() if name not in telling}
                return {name: await self._cut(tenant, part, reader, cut) for name, part in kept.items()}
            case _:
                return value

    async def _cut_text(self, tenant: str, text: str, reader: str, cut: Counter[str]) -> str:
        masked = _replaced(text, self._keys, lambda kind, _: f"[{kind.upper()}]")
        cut.update(masked.counts)
        if reader == "admin":
            return masked.text
        if reader == "operator":
            masked = await self.pseudonymize(tenant, masked.text)
        else:
            masked = _replaced(masked.text, self._everything, lambda kind, _: f"[{kind.upper()}]")
        cut.update(masked.counts)
        return masked.text


def _finder(kind: RuleType, kinds: tuple[str, ...] = ()) -> CompiledRules:
    rule = Rule(kind.value, kind, Severity.SEVERE, action=Action.REDACT, keywords=kinds)
    return compile_rules([Bundle("privacy", "1.0.0", (rule,))], Target.OUTPUT)


def _replaced(text: str, finder: CompiledRules, named: Callable[[str, str], str]) -> Masked:
    counts: Counter[str] = Counter()
    shown, at = [], 0
    verdicts: tuple[Verdict, ...] = judge(finder, Target.OUTPUT, text).verdicts
    for verdict in verdicts:
        counts[verdict.kind] += 1
        shown += [text[at : verdict.start], named(verdict.kind, text[verdict.start : verdict.end])]
        at = verdict.end
    return Masked("".join([*shown, text[at:]]), counts)


def _pseudonym(key: bytes, kind: str, value: str) -> str:
    """The same for the same value; without the tenant's key it tells nothing about it."""
    digest = hmac.new(key, f"{kind}\n{value}".encode(), hashlib.sha256).hexdigest()
    return f"[{kind.upper()}_{digest[:_DIGITS]}]"
