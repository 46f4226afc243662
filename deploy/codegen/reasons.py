"""`python -m deploy.codegen.reasons`: docs/errors.md, every reason of an error, from the comments of the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = _ROOT / "docs" / "errors.md"
_CONTRACT: Final = _ROOT / "protos" / "agentnet" / "common" / "v1" / "error_reason.proto"
_VALUE: Final = re.compile(r"((?:^  // .*\n)+)^  ERROR_REASON_(\w+) = (\d+);", re.MULTILINE)
_CODE: Final = re.compile(r" ?\(([A-Z][A-Z_]+)\)")
_HEAD: Final = """# Errors

Written by `make gen` from the contract. Every error is a google.rpc.Status (docs/api.md) whose ErrorInfo has one of
these reasons and `domain: agentnet`; programs switch on the reason, people read the message. What stands in `Metadata`
is in the ErrorInfo.

| reason | gRPC code | what it means, and what to do |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_rows(_CONTRACT.read_text()))


def _rows(contract: str) -> Iterator[str]:
    for comment, name, number in _VALUE.findall(contract):
        if int(number):
            text = " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
            code = _CODE.search(text)
            meaning = _CODE.sub("", text, count=1).replace("|", "\\|")
            yield f"| `{name}` | {code[1] if code else ''} | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
