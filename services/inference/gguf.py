"""What a GGUF file says of itself: its header of keys and values (ggml, docs/gguf.md), without the tensors."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

Value: TypeAlias = "int | float | bool | str | list[Value]"

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_ENTRIES: Final = 4096
_MAX_ARRAY: Final = 4_000_000
_MAX_STRING: Final = 16 * 1024 * 1024
_FORMATS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


class NotGguf(Exception):
    """The file is no GGUF this reader knows, or it is damaged."""


def read_header(path: Path) -> Mapping[str, Value]:
    """Every key with its value. Raises NotGguf, OSError."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise NotGguf(f"{path.name} is empty") from error
        with data:
            try:
                return _Header(data).entries()
            except (struct.error, UnicodeDecodeError, KeyError, RecursionError) as error:
                raise NotGguf(f"{path.name} is damaged") from error


class _Header:
    """A cursor over the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def entries(self) -> dict[str, Value]:
        if self._bytes(4) != _MAGIC or self._number("<I") not in _VERSIONS:
            raise NotGguf("this is no GGUF of version 2 or 3")
        self._number("<Q")  # how many tensors
        count = self._bounded(_MAX_ENTRIES)
        return {self._text(): self._value(self._number("<I")) for _ in range(count)}

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._scalar(_FORMATS[kind])
        of = self._number("<I")
        count = self._bounded(_MAX_ARRAY)
        if of in (_STRING, _ARRAY):
            read: Callable[[], Value] = self._text if of == _STRING else lambda: self._value(_ARRAY)
            return [read() for _ in range(count)]
        form = _FORMATS[of]
        whole = struct.Struct(f"<{count}{form[1]}")
        return list(whole.unpack(self._bytes(whole.size)))

    def _text(self) -> str:
        return self._bytes(self._bounded(_MAX_STRING)).decode()

    def _bounded(self, limit: int) -> int:
        count = self._number("<Q")
        if count > limit:
            raise NotGguf(f"a count of {count} is over {limit}")
        return count

    def _number(self, form: str) -> int:
        return int(self._scalar(form))

    def _scalar(self, form: str) -> int | float | bool:
        scalar: int | float | bool = struct.unpack(form, self._bytes(struct.calcsize(form)))[0]
        return scalar

    def _bytes(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._data):
            raise NotGguf("the file ends too soon")
        return self._data[start : self._at]
