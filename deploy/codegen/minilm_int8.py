"""`python -m deploy.codegen.minilm_int8`: how a processor with dot products of bytes computes the embedded model.

The graph holds no weights: they are read from the file the model comes in, as they are. What goes into a matrix is
split into two int8 numbers, coarse and fine, each multiplied as integers: 16 bits in effect, by steps that are fixed
here, so that a text's vector does not depend on its batch. They reach twice as far as any number seen in this
repository's pages and the words of the model's vocabulary; what goes beyond is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.codegen.token_axes import texts
from services.inference.embeddings.arithmetic import Arithmetic
from services.inference.embeddings.contract import TokenIds
from services.inference.embeddings.device import Device
from services.inference.embeddings.minilm import GRAPH, WEIGHTS, MiniLM, int8_session, weights_file

_CONTRIB: Final = "com.microsoft"
_CONTRIBUTED: Final = {"SkipLayerNormalization", "MultiHeadAttention", "BiasGelu", "MatMulIntegerToFloat"}
_LAYERS: Final = 6
_HEADS: Final = 12
_EPSILON: Final = 1e-12
_UNSEEN: Final = 100.0  # reach while reaches are being found
_MARGIN: Final = 2
_COARSE: Final = 127
_FINE: Final = 254  # fine steps in a coarse one
_MIDDLE: Final = "zero"
_INPUTS: Final = ("input_ids", "attention_mask")
_EMBEDDINGS: Final = "inner.embeddings."


@dataclass(slots=True)
class _Graph:
    """What has been written of it."""

    source: onnx.ModelProto
    file: bytes
    reach: Mapping[str, float]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        domain = _CONTRIB if kind in _CONTRIBUTED else ""
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, name: str, value: Any, kind: type[np.generic]) -> str:
        self.weights[name] = numpy_helper.from_array(np.asarray(value, kind), name)
        return name

    def stored(self, name: str, shape: Sequence[int] = ()) -> str:
        """A tensor of the model's own file, by its place there; `shape` where it is another one of the same numbers."""
        given = next(one for one in self.source.graph.initializer if one.name == name)
        tensor = onnx.TensorProto(name=name, data_type=given.data_type, dims=shape or given.dims)
        tensor.data_location = TensorProto.EXTERNAL
        size = math.prod(tensor.dims) * (1 if given.data_type == TensorProto.INT8 else 4)
        place = {"location": WEIGHTS, "offset": self.file.index(given.raw_data), "length": size}
        tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=str(place[key])) for key in place)
        self.weights[name] = tensor
        return name


def main() -> None:
    file = weights_file().read_bytes()
    source = onnx.load_from_string(file)
    first = written(source, file, {})
    GRAPH.write_bytes(written(source, file, _reaches(first)).SerializeToString())


def written(source: onnx.ModelProto, file: bytes, reach: Mapping[str, float]) -> onnx.ModelProto:
    """The graph, for numbers up to `reach` by where they go into a matrix."""
    graph = _Graph(source, file, reach)
    graph.constant(_MIDDLE, 128, np.uint8)
    products = [node.input[1] for node in source.graph.node if node.op_type == "MatMul"]
    matrices = [name for name in products if f"{name}_q" in {one.name for one in source.graph.initializer}]
    hidden = _read(graph)
    for layer in range(_LAYERS):
        hidden = _layer(graph, layer, hidden, matrices[6 * layer : 6 * layer + 6])
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in _INPUTS]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 384])
    graph.node("Identity", [hidden], "last_hidden_state")
    made = helper.make_graph(graph.nodes, "minilm", inputs, [output], list(graph.weights.values()))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_CONTRIB, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10, producer_name="agentnet")


def _read(graph: _Graph) -> str:
    """The tokens' first vectors."""
    graph.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    words, places = (f"{_EMBEDDINGS}{kind}_embeddings.weight" for kind in ("word", "position"))
    for part in ("q", "scale"):
        graph.node("Gather", [graph.stored(f"{words}_{part}"), "input_ids"], f"word_{part}")
    graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    graph.constant("start", [0], np.int64)
    for part in ("q", "scale"):
        graph.node("Slice", [graph.stored(f"{places}_{part}"), "start", "length"], f"place_{part}")
    for kind in ("word", "place"):
        graph.node("Cast", [f"{kind}_q"], f"{kind}_steps", to=TensorProto.FLOAT)
        graph.node("Mul", [f"{kind}_steps", f"{kind}_scale"], kind)
    kind_of_text = graph.stored(f"{_EMBEDDINGS}token_type_embeddings.weight", [384])
    return _normalised(graph, ["word", "place"], f"{_EMBEDDINGS}LayerNorm", "read", bias=[kind_of_text])


def _layer(graph: _Graph, layer: int, hidden: str, matrices: Sequence[str]) -> str:
    source, own = f"inner.encoder.layer.{layer}.", f"layer{layer}."
    split = _split(graph, hidden)
    parts = [_product(graph, split, matrix, f"{own}{at}") for at, matrix in enumerate(matrices[:3])]
    names = [f"{source}attention.self.{one}.bias" for one in ("query", "key", "value")]
    biases = graph.node("Concat", [graph.stored(name) for name in names], f"{own}biases", axis=0)
    seen = graph.node("MultiHeadAttention", [*parts, biases, "mask"], f"{own}seen", num_heads=_HEADS)
    said = _product(graph, _split(graph, seen), matrices[3], f"{own}said", f"{source}attention.output.dense.bias")
    middle = _normalised(graph, [said, hidden], f"{source}attention.output.LayerNorm", f"{own}middle")
    wide = _product(graph, _split(graph, middle), matrices[4], f"{own}wide")
    bent = graph.node("BiasGelu", [wide, graph.stored(f"{source}intermediate.dense.bias")], f"{own}bent")
    narrow = _product(graph, _split(graph, bent), matrices[5], f"{own}narrow", f"{source}output.dense.bias")
    return _normalised(graph, [narrow, middle], f"{source}output.LayerNorm", f"{own}hidden")


def _normalised(graph: _Graph, added: Sequence[str], name: str, output: str, bias: Sequence[str] = ()) -> str:
    inputs = [*added, graph.stored(f"{name}.weight"), graph.stored(f"{name}.bias"), *bias]
    return graph.node("SkipLayerNormalization", inputs, output, epsilon=_EPSILON)


def _split(graph: _Graph, numbers: str) -> list[tuple[str, str]]:
    """Its coarse and its fine part, each with its step."""
    step = graph.reach.get(numbers, _UNSEEN) / _COARSE
    coarse = graph.constant(f"{numbers}.coarse_step", step, np.float32)
    fine = graph.constant(f"{numbers}.fine_step", step / _FINE, np.float32)
    large = graph.node("QuantizeLinear", [numbers, coarse, _MIDDLE], f"{numbers}.coarse")
    back = graph.node("DequantizeLinear", [large, coarse, _MIDDLE], f"{numbers}.back")
    rest = graph.node("Sub", [numbers, back], f"{numbers}.rest")
    small = graph.node("QuantizeLinear", [rest, fine, _MIDDLE], f"{numbers}.fine")
    return [(large, coarse), (small, fine)]


def _product(graph: _Graph, split: Sequence[tuple[str, str]], matrix: str, output: str, bias: str = "") -> str:
    width = next(one for one in graph.source.graph.initializer if one.name == f"{matrix}_q").dims[1]
    middle = graph.constant(f"zeros{width}", np.zeros(width), np.int8)
    steps = graph.stored(f"{matrix}_scale", [width])
    parts: list[str] = []
    for numbers, step in split:
        inputs = [numbers, graph.stored(f"{matrix}_q"), step, steps, _MIDDLE, middle]
        more = [graph.stored(bias)] if bias and not parts else []
        parts.append(graph.node("MatMulIntegerToFloat", inputs + more, f"{output}.{len(parts)}"))
    return graph.node("Add", parts, output)


def _reaches(graph: onnx.ModelProto) -> dict[str, float]:
    """Twice the largest number that goes into each matrix, over texts and the vocabulary."""
    wanted = [node.input[0] for node in graph.graph.node if node.output[0].endswith(".coarse")]
    for name in wanted:
        graph.graph.node.append(helper.make_node("Abs", [name], [f"{name}.size"]))
        graph.graph.node.append(helper.make_node("ReduceMax", [f"{name}.size"], [f"{name}.largest"], keepdims=0))
        graph.graph.output.append(helper.make_tensor_value_info(f"{name}.largest", TensorProto.FLOAT, []))
    made = int8_session(graph.SerializeToString(), onnxruntime.SessionOptions())
    largest = np.zeros(len(wanted))
    for batch in _batches():
        given = {"input_ids": batch, "attention_mask": np.ones_like(batch)}
        found = made.run([f"{name}.largest" for name in wanted], given)
        largest = np.maximum(largest, np.array([float(one) for one in found]))
    return dict(zip(wanted, (_MARGIN * largest).tolist(), strict=True))


def _batches() -> Iterator[NDArray[np.int64]]:
    """Texts of the same length together: padding would be seen too."""
    read: list[TokenIds] = sorted(
        (one.ids for one in MiniLM(Device.CPU, arithmetic=Arithmetic.FLOAT).tokenise(texts())), key=len
    )
    for _, alike in groupby(read, key=len):
        yield np.array(list(alike)[:64], dtype=np.int64)


if __name__ == "__main__":
    main()
