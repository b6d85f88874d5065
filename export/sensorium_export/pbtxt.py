"""A model config as text to read and to edit: fields in order of interest, each one explained."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

BLOCKS = (
    ("name", "backend", "platform"),
    ("max_batch_size",),
    ("input",),
    ("output",),
    ("ensemble_scheduling",),
    ("dynamic_batching",),
    ("instance_group",),
    ("parameters",),
)
"""The fields in order of interest; an empty line comes between two blocks."""

ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "image_preprocess": "A picture's bytes become the array that the image encoder sees.",
        "text_preprocess": "A text's bytes become token ids.",
        "image_encoder": "A picture becomes tokens, and one vector in the shared space.",
        "text_encoder": "A text becomes tokens, and one vector in the shared space.",
        "fusion": "Text tokens look at image tokens.",
        "text_decoder": "Memory tokens become an answer or a caption, word by word.",
        "visual_question_answering": "A picture and a question become an answer.",
        "image_captioning": "A picture becomes a sentence.",
        "text_embedding": "A text becomes one vector in the space it shares with pictures.",
        "image_embedding": "A picture becomes one vector in the space it shares with texts.",
    }
)
"""What each model does, in one sentence."""

_COMMENTS = {
    "max_batch_size": "The first axis of every tensor is the batch; `dims` below leave it out.",
    "dynamic_batching": "Requests that queue up meanwhile run together, of equal length or not.",
    "ensemble_scheduling": "`key` is the stage's own tensor, `value` what this task calls it.",
    "instance_group": "One instance; a heavy encoder serves more with one for every core.",
}
_PARAMETER_COMMENTS = {
    "image_size": "Side of the square picture, in pixels.",
    "resample": "The filter of the training run; another one gives other answers.",
    "crop": "squash: the whole picture becomes a square. center_crop: its middle does.",
    "mean": "Taken off the red, green and blue values, which lie in 0 to 1.",
    "std": "Then divided by.",
    "max_tokens": "The longest text, in tokens.",
    "pad_id": "The token that fills shorter texts of a batch; the mask hides it.",
    "buckets.sequence": "Shorter batches are padded to the next of these lengths.",
    "pad_value.input_ids": "What the padding holds; the mask hides it.",
    "bos_id": "The token that generation starts from.",
    "eos_id": "The token that ends it.",
    "max_new_tokens": "Where it ends at the latest.",
    "slots": "Texts that are generated side by side; the next one takes the first that ends.",
    "intra_op_thread_count": "Threads of one session; throughput comes from batches.",
    "session.intra_op.allow_spinning": "0: waiting threads sleep, and leave the cores to others.",
}


_MAP_ENTRY = re.compile(r'\{\s+key: "(\S*)"\s+value: "(\S*)"\s+\}')


def pbtxt_from_config(config: ModelConfig) -> str:
    """Write a config as commented text."""
    written = {field.name for field, _ in config.ListFields()}
    forgotten = written.difference(*BLOCKS)
    assert not forgotten, f"no block for {forgotten}"  # noqa: S101 - our own mistake
    head = f"# {ABOUT[config.name]} Written by `sensorium export`."
    blocks = [_block(config, fields) for fields in BLOCKS if written.intersection(fields)]
    return "\n\n".join([head, *blocks]) + "\n"


def _block(config: ModelConfig, fields: tuple[str, ...]) -> str:
    if fields == ("parameters",):
        order = [*_PARAMETER_COMMENTS, *sorted(config.parameters)]
        keys = sorted(config.parameters, key=order.index)
        return "\n\n".join(_parameter(config, key) for key in keys)
    alone = ModelConfig()
    alone.MergeFrom(config)
    for field, _ in config.ListFields():
        if field.name not in fields:
            alone.ClearField(field.name)
    comment = _COMMENTS.get(fields[0])
    return (f"# {comment}\n" if comment else "") + _text(alone)


def _parameter(config: ModelConfig, key: str) -> str:
    value = config.parameters[key].string_value
    comment = _PARAMETER_COMMENTS.get(key)
    line = f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
    return f"# {comment}\n{line}" if comment else line


def _text(message: ModelConfig) -> str:
    text = text_format.MessageToString(message, use_short_repeated_primitives=True).rstrip()
    return _MAP_ENTRY.sub(r'{ key: "\1" value: "\2" }', text)
