"""The public contract: every tensor name, dtype and shape of every task and stage, written once.

The client packs by it, the exporter names graph inputs and dynamic axes by it, the model
repository is generated and checked against it, and tests draw their inputs from it.

A shape leaves out the leading batch axis. An axis is a number, or the name of a size: names in
`DYNAMIC_AXES` vary from request to request, all others are fixed by the checkpoint's config.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

Axis = int | str

BATCH = "batch"
SEQUENCE = "sequence"
MEMORY = "memory"
PAST = "past"
DYNAMIC_AXES = frozenset({BATCH, SEQUENCE, MEMORY, PAST})


class DType(StrEnum):
    """The element types of the KServe v2 protocol that Sensorium uses."""

    BYTES = "BYTES"
    FP32 = "FP32"
    INT64 = "INT64"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor; `shape` leaves out the batch axis."""

    name: str
    dtype: DType
    shape: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a task, a stage or a graph takes and gives; `optional` inputs may be left out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional: tuple[TensorSpec, ...] = ()


IMAGE = TensorSpec("image", DType.BYTES, (1,))
QUESTION = TensorSpec("question", DType.BYTES, (1,))
TEXT = TensorSpec("text", DType.BYTES, (1,))
ANSWER = TensorSpec("answer", DType.BYTES, (1,))
CAPTION = TensorSpec("caption", DType.BYTES, (1,))
SCORE = TensorSpec("score", DType.FP32, (1,))
EMBEDDING = TensorSpec("embedding", DType.FP32, ("embedding_dim",))

PIXEL_VALUES = TensorSpec("pixel_values", DType.FP32, (3, "image_size", "image_size"))
IMAGE_TOKENS = TensorSpec("image_tokens", DType.FP32, ("image_tokens", "width"))
IMAGE_MASK = TensorSpec("image_mask", DType.INT64, ("image_tokens",))
IMAGE_EMBEDDING = TensorSpec("image_embedding", DType.FP32, ("embedding_dim",))
INPUT_IDS = TensorSpec("input_ids", DType.INT64, (SEQUENCE,))
ATTENTION_MASK = TensorSpec("attention_mask", DType.INT64, (SEQUENCE,))
TEXT_TOKENS = TensorSpec("text_tokens", DType.FP32, (SEQUENCE, "width"))
TEXT_EMBEDDING = TensorSpec("text_embedding", DType.FP32, ("embedding_dim",))
FUSED_TOKENS = TensorSpec("fused_tokens", DType.FP32, (SEQUENCE, "width"))
DECODER_MEMORY = TensorSpec("memory", DType.FP32, (MEMORY, "width"))
DECODER_MEMORY_MASK = TensorSpec("memory_mask", DType.INT64, (MEMORY,))

AFTER = TensorSpec("after", DType.FP32, ("embedding_dim",))
"""Ignored: a stage that takes it runs after the stage that makes it. See decision 2."""

_KV = ("kv_layers", "heads")
CROSS = TensorSpec("cross", DType.FP32, (*_KV, MEMORY, "head_dim"))
PAST_KV = TensorSpec("past", DType.FP32, (*_KV, PAST, "head_dim"))
PRESENT_KV = TensorSpec("present", DType.FP32, (*_KV, "head_dim"))
TOKEN_ID = TensorSpec("token_id", DType.INT64, ())
POSITION = TensorSpec("position", DType.INT64, ())
LOGITS = TensorSpec("logits", DType.FP32, ("vocabulary",))

TASKS: Mapping[str, Signature] = MappingProxyType(
    {
        "visual_question_answering": Signature((IMAGE, QUESTION), (ANSWER, SCORE)),
        "image_captioning": Signature((IMAGE,), (CAPTION, SCORE)),
        "text_embedding": Signature((TEXT,), (EMBEDDING,)),
        "image_embedding": Signature((IMAGE,), (EMBEDDING,)),
    }
)
"""The Triton ensembles that clients call."""

STAGES: Mapping[str, Signature] = MappingProxyType(
    {
        "image_preprocess": Signature((IMAGE,), (PIXEL_VALUES,), optional=(AFTER,)),
        "text_preprocess": Signature((TEXT,), (INPUT_IDS, ATTENTION_MASK)),
        "image_encoder": Signature((PIXEL_VALUES,), (IMAGE_TOKENS, IMAGE_MASK, IMAGE_EMBEDDING)),
        "text_encoder": Signature((INPUT_IDS, ATTENTION_MASK), (TEXT_TOKENS, TEXT_EMBEDDING)),
        "fusion": Signature(
            (TEXT_TOKENS, ATTENTION_MASK, IMAGE_TOKENS, IMAGE_MASK), (FUSED_TOKENS,)
        ),
        "text_decoder": Signature((DECODER_MEMORY, DECODER_MEMORY_MASK), (TEXT, SCORE)),
    }
)
"""The Triton models that ensembles are made of."""

DECODER_GRAPHS: Mapping[str, Signature] = MappingProxyType(
    {
        "cross": Signature((DECODER_MEMORY,), (CROSS,)),
        "step": Signature(
            (TOKEN_ID, POSITION, PAST_KV, CROSS, DECODER_MEMORY_MASK), (LOGITS, PRESENT_KV)
        ),
    }
)
"""The two ONNX graphs inside `text_decoder`.

`cross` runs once per request: keys and values of the memory. `step` runs once per generated
token: `past` holds the keys and values of earlier tokens, of which row i has `position[i]` valid
ones; `present` is this token's own. `kv_layers` is twice the number of layers: key and value of
layer l lie at 2l and 2l+1.
"""


def signature_of(model: str) -> Signature:
    """Return the signature of a task or stage.

    Raises:
        KeyError: `model` is neither.
    """
    return TASKS[model] if model in TASKS else STAGES[model]
