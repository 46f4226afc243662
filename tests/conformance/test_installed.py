"""What is installed is what was meant to be: no package's file lies where another's belongs."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from importlib.metadata import PackagePath, distributions

# It carries old copies of other packages' files.
COPIES = "xds-protos"


def test_files_that_two_packages_bring_are_those_of_the_package_they_belong_to() -> None:
    owners: dict[str, dict[str, PackagePath]] = defaultdict(dict)
    for package in distributions():
        for file in package.files or ():
            if ".dist-info" not in str(file) and "__pycache__" not in str(file) and not str(file).startswith(".."):
                owners[str(file)][package.metadata["Name"]] = file
    shared = {path: found for path, found in owners.items() if len(found) > 1 and COPIES in found}
    assert shared, f"{COPIES} carries no other package's files any more: install it like any other"
    assert not [
        path for path, found in shared.items() for name, file in found.items() if name != COPIES and not _is_there(file)
    ]


def _is_there(file: PackagePath) -> bool:
    if file.hash is None:
        return True
    digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value
