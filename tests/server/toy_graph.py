"""The toy bundle's graphs: tiny, with random weights, and with the contract's names and axes.

What they put out means nothing, but depends on every word, on every part of the picture and on
every token generated before, so that a mixed-up batch, a wrong mask or a stale cache shows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sensorium.contract import DECODER_GRAPHS, Axis, DType, Signature, TensorSpec
from sensorium_export.ensembles import ENSEMBLES, signature_in

SIZES: dict[Axis, Axis] = {
    "image_size": 6,
    "noise_channels": 3,
    "noise_size": 6,
    "image_tokens": 4,
    "width": 8,
    "media_width": 8,
    "text_width": 8,
    "memory_width": 8,
    "embedding_dim": 8,
    "kv_layers": 2,
    "heads": 1,
    "head_dim": 8,
    "vocabulary": 24,
}
PAD, UNK, BOS, EOS = range(4)
MAX_NEW_TOKENS = 12

_ONNX_TYPE = {DType.FP32: TensorProto.FLOAT, DType.INT64: TensorProto.INT64}
Node = tuple[str, Sequence[str], str] | tuple[str, Sequence[str], str, Mapping[str, Any]]


def _random(seed: int, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def graph(
    signature: Signature, nodes: Sequence[Node], constants: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    """Make a checked graph with the contract's names and dynamic axes."""

    def infos(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                spec.name,
                _ONNX_TYPE[spec.dtype],
                ["batch", *(SIZES.get(axis, axis) for axis in spec.shape)],
            )
            for spec in specs
        ]

    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(op, list(inputs), [output], **(rest[0] if rest else {}))
                for op, inputs, output, *rest in nodes
            ],
            "toy",
            infos(signature.inputs),
            infos(signature.outputs),
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def image_encoder() -> onnx.ModelProto:
    """Make four tokens of four quarters of the picture."""
    return graph(
        signature_in("image_encoder", ENSEMBLES.values()),
        [
            (
                "AveragePool",
                ["pixel_values"],
                "pooled",
                {"kernel_shape": [3, 3], "strides": [3, 3]},
            ),
            ("Reshape", ["pooled", "flat"], "quarters"),
            ("Transpose", ["quarters"], "columns", {"perm": [0, 2, 1]}),
            ("MatMul", ["columns", "weight"], "image_tokens"),
            ("ReduceSum", ["columns", "last"], "sums", {"keepdims": 0}),
            ("Cast", ["sums"], "whole", {"to": TensorProto.INT64}),
            ("Mul", ["whole", "zero"], "nothing"),
            ("Add", ["nothing", "one"], "image_mask"),
            ("ReduceMean", ["image_tokens", "middle"], "mean", {"keepdims": 0}),
            ("LpNormalization", ["mean"], "image_embedding"),
        ],
        {
            "flat": _ints(0, 3, 4),
            "weight": _random(1, 3, 8),
            "last": _ints(2),
            "middle": _ints(1),
            "zero": _ints(0),
            "one": _ints(1),
        },
    )


_MASKED_MEAN: list[Node] = [
    ("Cast", ["attention_mask"], "mask", {"to": TensorProto.FLOAT}),
    ("Unsqueeze", ["mask", "last"], "mask3"),
    ("Mul", ["text_tokens", "mask3"], "masked"),
    ("ReduceSum", ["masked", "middle"], "sum", {"keepdims": 0}),
    ("ReduceSum", ["mask", "middle"], "count", {"keepdims": 1}),
    ("Div", ["sum", "count"], "mean"),
]


def text_encoder() -> onnx.ModelProto:
    """Embed each word; the vector is the mean over the words that the mask shows."""
    return graph(
        signature_in("text_encoder", ENSEMBLES.values()),
        [
            ("Gather", ["words", "input_ids"], "text_tokens"),
            *_MASKED_MEAN,
            ("LpNormalization", ["mean"], "text_embedding"),
        ],
        {"words": _random(2, 24, 8), "last": _ints(2), "middle": _ints(1)},
    )


def fusion() -> onnx.ModelProto:
    """Add the mean word and the mean media token to each word."""
    return graph(
        signature_in("fusion", ENSEMBLES.values()),
        [
            *_MASKED_MEAN,
            ("Cast", ["media_mask"], "seen", {"to": TensorProto.FLOAT}),
            ("Unsqueeze", ["seen", "last"], "seen3"),
            ("Mul", ["media_tokens", "seen3"], "media_masked"),
            ("ReduceMean", ["media_masked", "middle"], "media", {"keepdims": 1}),
            ("Unsqueeze", ["mean", "middle"], "mean3"),
            ("Add", ["text_tokens", "media"], "with_media"),
            ("Add", ["with_media", "mean3"], "fused_tokens"),
        ],
        {"last": _ints(2), "middle": _ints(1)},
    )


def cross() -> onnx.ModelProto:
    """Make two planes of the memory, as keys and values would be."""
    return graph(
        DECODER_GRAPHS["cross"],
        [
            ("MatMul", ["memory", "weight"], "key"),
            ("Unsqueeze", ["key", "planes"], "key5"),
            ("Unsqueeze", ["memory", "planes"], "value5"),
            ("Concat", ["key5", "value5"], "cross", {"axis": 1}),
        ],
        {"weight": _random(3, 8, 8), "planes": _ints(1, 2)},
    )


def step() -> onnx.ModelProto:
    """Take the next token from this one, the position, all earlier ones and the memory."""
    total: Mapping[str, Any] = {"keepdims": 0}
    return graph(
        DECODER_GRAPHS["step"],
        [
            # past: sum over the valid positions
            ("Shape", ["past"], "past_shape"),
            ("Gather", ["past_shape", "three"], "length"),
            ("Range", ["start", "length", "stride"], "slots"),
            ("Unsqueeze", ["position", "first"], "position2"),
            ("Less", ["slots", "position2"], "valid"),
            ("Cast", ["valid"], "valid_float", {"to": TensorProto.FLOAT}),
            ("Unsqueeze", ["valid_float", "around"], "valid5"),
            ("Mul", ["past", "valid5"], "past_valid"),
            ("ReduceSum", ["past_valid", "inner"], "history", total),
            # cross: mean over the memory that the mask shows
            ("Cast", ["memory_mask"], "memory_float", {"to": TensorProto.FLOAT}),
            ("Unsqueeze", ["memory_float", "around"], "memory5"),
            ("Mul", ["cross", "memory5"], "cross_valid"),
            ("ReduceSum", ["cross_valid", "inner"], "context_sum", total),
            ("ReduceSum", ["memory_float", "first"], "memory_count", {"keepdims": 1}),
            ("Div", ["context_sum", "memory_count"], "context"),
            ("Gather", ["words", "token_id"], "word"),
            ("Gather", ["places", "position"], "place"),
            ("Mul", ["history", "fade"], "memory_of_words"),
            ("Sum", ["memory_of_words", "context", "word", "place"], "state"),
            ("Tanh", ["state"], "hidden"),
            ("MatMul", ["hidden", "head"], "logits"),
            ("Reshape", ["hidden", "plane"], "hidden4"),
            ("Concat", ["hidden4", "hidden4"], "present", {"axis": 1}),
        ],
        {
            "three": np.array(3, np.int64),
            "start": np.array(0, np.int64),
            "stride": np.array(1, np.int64),
            "first": _ints(1),
            "around": _ints(1, 2, 4),
            "inner": _ints(1, 2, 3),
            "plane": _ints(0, 1, 1, 8),
            "fade": np.array(-0.3, np.float32),
            "words": _random(4, 24, 8),
            "places": _random(5, MAX_NEW_TOKENS, 8),
            "head": _head(),
        },
    )


def _head() -> NDArray[np.float32]:
    """Make a head that never says padding, an unknown word or the start again."""
    head = _random(6, 8, 24)
    head[:, [PAD, UNK, BOS]] = 0
    return head


GRAPHS = {
    "image_encoder/1/model.onnx": image_encoder,
    "text_encoder/1/model.onnx": text_encoder,
    "fusion/1/model.onnx": fusion,
    "text_decoder/1/cross.onnx": cross,
    "text_decoder/1/step.onnx": step,
}
