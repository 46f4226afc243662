"""ONNX files of one kind, written byte by byte: a weighted sum and its sigmoid. Nothing here needs the `onnx` package."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_FLOAT = 1
_IR_VERSION = 8
_OPSET = 13


def linear_head(weights: Sequence[float], bias: float) -> bytes:
    """`probability = sigmoid(vector · weights + bias)`, for any number of vectors at once."""
    nodes = [
        _node("Gemm", ["vector", "weights", "bias"], "logit"),
        _node("Sigmoid", ["logit"], "probability"),
    ]
    graph = b"".join(
        [
            *(_nested(1, node) for node in nodes),
            _nested(2, b"head"),
            _nested(5, _tensor("weights", [len(weights), 1], weights)),
            _nested(5, _tensor("bias", [1], [bias])),
            _nested(11, _value("vector", len(weights))),
            _nested(12, _value("probability", 1)),
        ]
    )
    return _number(1, _IR_VERSION) + _nested(8, _number(2, _OPSET)) + _nested(7, graph)


def _node(operation: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(
        [*(_nested(1, one.encode()) for one in inputs), _nested(2, output.encode()), _nested(4, operation.encode())]
    )


def _tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    sizes = b"".join(_number(1, one) for one in shape)
    return sizes + _number(2, _FLOAT) + _nested(8, name.encode()) + _nested(9, struct.pack(f"<{len(values)}f", *values))


def _value(name: str, width: int) -> bytes:
    shape = _nested(1, _nested(2, b"rows")) + _nested(1, _number(1, width))
    return _nested(1, name.encode()) + _nested(2, _nested(1, _number(1, _FLOAT) + _nested(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _nested(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
