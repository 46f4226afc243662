"""Things by name: those of this package, and plug-ins of installed packages by their entry points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from services.orchestrator.errors import NameUnknown

Thing = TypeVar("Thing")


@dataclass(slots=True)
class Named(Generic[Thing]):
    """One kind of thing. A plug-in is an entry point of `group`; its object, called without arguments, makes the thing.

    What this package has cannot be replaced by a plug-in of the same name.
    """

    kind: str
    group: str
    own: Mapping[str, Thing]
    _loaded: dict[str, Thing] = field(default_factory=dict)

    def __call__(self, name: str, field: str = "") -> Thing:
        """Raises NameUnknown with the field it was asked for in, or the kind."""
        if (found := self.own.get(name) or self._loaded.get(name)) is not None:
            return found
        for point in entry_points(group=self.group, name=name):
            try:
                self._loaded[name] = point.load()()
            except (ImportError, AttributeError, TypeError) as error:
                broken = f"the {self.kind} {name} does not load: {error}"
                raise NameUnknown(broken[:500], field=field or self.kind, known=", ".join(self.own)) from None
            return self._loaded[name]
        known = ", ".join(self.names())
        raise NameUnknown(f"no {self.kind} {name}; this mesh has {known}", field=field or self.kind, known=known)

    def names(self) -> list[str]:
        """All there are."""
        return sorted({*self.own, *(point.name for point in entry_points(group=self.group))})
