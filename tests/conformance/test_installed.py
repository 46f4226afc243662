"""What is installed is what was meant to be: no package's file lies where another's belongs."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import distributions


def test_no_module_is_brought_by_two_packages_in_two_versions() -> None:
    brought: dict[str, dict[str, str]] = defaultdict(dict)
    for package in distributions():
        for file in package.files or ():
            if file.suffix in {".py", ".so"} and file.hash:
                brought[str(file)][package.metadata["Name"]] = file.hash.value
    assert brought
    assert not {path: found for path, found in brought.items() if len(set(found.values())) > 1}
