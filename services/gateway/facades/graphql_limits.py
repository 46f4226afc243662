"""How much one question may ask: counted before anything is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphql import DocumentNode, FieldNode, FragmentDefinitionNode, OperationDefinitionNode, SelectionSetNode

from shared.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Most:
    """Calls are fields of Query, fields are all, deep is how far they are inside one another."""

    calls: int = 20
    fields: int = 500
    deep: int = 10


class TooMuch(InvalidArgument):
    """Ask less at once."""


def check(document: DocumentNode, most: Most) -> None:
    """Raises TooMuch. Fragments count each time they are used, aliases as fields of their own."""
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    for operation in document.definitions:
        if isinstance(operation, OperationDefinitionNode):
            _Count(fragments, most).take(operation.selection_set, 1)


class _Count:
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode], most: Most) -> None:
        self._fragments = fragments
        self._most = most
        self._calls = 0
        self._fields = 0

    def take(self, selection: SelectionSetNode, depth: int) -> None:
        for node in selection.selections:
            inner = depth
            if isinstance(node, FieldNode):
                self._field(node, depth)
                inner, below = depth + 1, node.selection_set
            else:
                name = getattr(getattr(node, "name", None), "value", "")
                fragment = self._fragments.get(name)
                below = fragment.selection_set if fragment else getattr(node, "selection_set", None)
                self._visit()
            if below is not None:
                self.take(below, inner)

    def _field(self, node: FieldNode, depth: int) -> None:
        if depth > self._most.deep:
            raise TooMuch(f"the question is more than {self._most.deep} fields deep", field="query")
        if depth == 1 and not node.name.value.startswith("__"):
            self._calls += 1
        if self._calls > self._most.calls:
            raise TooMuch(f"the question has more than {self._most.calls} fields of Query", field="query")
        self._visit()

    def _visit(self) -> None:
        self._fields += 1
        if self._fields > self._most.fields:
            raise TooMuch(f"the question has more than {self._most.fields} fields", field="query")
