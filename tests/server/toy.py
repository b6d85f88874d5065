"""A whole bundle of texts and pictures in a second: real stages, and the graphs of `toy_graph`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from tests.server.toy_graph import BOS, EOS, GRAPHS, MAX_NEW_TOKENS, PAD, SIZES, UNK
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from sensorium.contract import DYNAMIC_AXES, STAGES, TASKS, DType, TensorSpec
from sensorium_export.ensembles import ENSEMBLES as NATIVE
from sensorium_export.ensembles import signature_in
from sensorium_server.gate import Verdict, write_verdict
from sensorium_server.manifest import digest

__all__ = ["BOS", "EOS", "MAX_NEW_TOKENS", "PAD", "SIZES", "UNK", "VOCABULARY", "WORDS", "build"]

_TRITON_TYPE = {DType.BYTES: "STRING", DType.FP32: "FP32", DType.INT64: "INT64"}
MAX_TOKENS = 64
WORDS = [
    *("[PAD]", "[UNK]", "[BOS]", "[EOS]"),
    *("what", "color", "is", "the", "large", "small", "star", "square", "circle", "red"),
    *("green", "blue", "left", "right", "of", "a", "how", "many", "things", "there"),
]
VOCABULARY = {word: index for index, word in enumerate(WORDS)}

PARAMETERS: Mapping[str, Mapping[str, object]] = {
    "image_preprocess": {
        "image_size": 6,
        "crop": "squash",
        "mean": "0.5,0.5,0.5",
        "std": "0.5,0.5,0.5",
    },
    "text_preprocess": {"max_tokens": MAX_TOKENS, "pad_id": PAD},
    "text_encoder": {"buckets.sequence": "8,16,32,64"},
    "fusion": {"buckets.sequence": "8,16,32,64"},
    "text_decoder": {"bos_id": BOS, "eos_id": EOS, "max_new_tokens": MAX_NEW_TOKENS, "slots": 8},
}

BACKENDS = {
    "image_preprocess": "python",
    "text_preprocess": "python",
    "image_encoder": "onnxruntime",
    "text_encoder": "onnxruntime",
    "fusion": "onnxruntime",
    "text_decoder": "decoder",
}

Step = tuple[str, Mapping[str, str], Mapping[str, str]]
_SEE: list[Step] = [
    ("image_preprocess", {"image": "image"}, {"pixel_values": "pixel_values"}),
    (
        "image_encoder",
        {"pixel_values": "pixel_values"},
        {"image_tokens": "image_tokens", "image_mask": "image_mask"},
    ),
]
_IDS = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
ENSEMBLES: Mapping[str, list[Step]] = {
    "visual_question_answering": [
        ("text_preprocess", {"text": "question"}, _IDS),
        ("text_encoder", _IDS, {"text_tokens": "text_tokens", "text_embedding": "text_embedding"}),
        # `after` lets no two steps run at once: see decision 0002.
        (
            "image_preprocess",
            {"image": "image", "after": "text_embedding"},
            {"pixel_values": "pixel_values"},
        ),
        _SEE[1],
        (
            "fusion",
            {
                "text_tokens": "text_tokens",
                "attention_mask": "attention_mask",
                "media_tokens": "image_tokens",
                "media_mask": "image_mask",
            },
            {"fused_tokens": "fused_tokens"},
        ),
        (
            "text_decoder",
            {"memory": "fused_tokens", "memory_mask": "attention_mask"},
            {"text": "answer", "score": "score"},
        ),
    ],
    "image_captioning": [
        *_SEE,
        (
            "text_decoder",
            {"memory": "image_tokens", "memory_mask": "image_mask"},
            {"text": "caption", "score": "score"},
        ),
    ],
    "text_embedding": [
        ("text_preprocess", {"text": "text"}, _IDS),
        ("text_encoder", _IDS, {"text_embedding": "embedding"}),
    ],
    "image_embedding": [
        ("image_preprocess", {"image": "image"}, {"pixel_values": "pixel_values"}),
        ("image_encoder", {"pixel_values": "pixel_values"}, {"image_embedding": "embedding"}),
    ],
}


def tokenizer() -> Tokenizer:
    """Make a tokenizer of whole words, without punctuation."""
    made = Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.normalizer = Lowercase()
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(["[PAD]", "[BOS]", "[EOS]"])
    return made


def build(repository: Path) -> Path:
    """Write the whole repository with its manifest, taken as proven; return its path."""
    for model in (*BACKENDS, *ENSEMBLES):
        (repository / model / "1").mkdir(parents=True)
        text = _stage_config(model) if model in STAGES else _ensemble_config(model)
        (repository / model / "config.pbtxt").write_text(text)
    for module, model in (("image", "image_preprocess"), ("text", "text_preprocess")):
        (repository / model / "1" / "model.py").write_text(
            f"from sensorium_server.stages import {module}\n"
            f"from sensorium_server.triton import as_model\n\n"
            f"TritonPythonModel = as_model({module}.stage)\n"
        )
    for path, make in GRAPHS.items():
        onnx.save(make(), repository / path)
    for model in ("text_preprocess", "text_decoder"):
        tokenizer().save(str(repository / model / "1" / "tokenizer.json"))
    files = sorted(path for path in repository.glob("*/1/*"))
    (repository / "toy.manifest.json").write_text(
        json.dumps(
            {
                "bundle": "toy",
                "files": {str(path.relative_to(repository)): digest(path) for path in files},
            }
        )
    )
    write_verdict(repository, "toy", Verdict(passed=True, inputs=0, failures=()))
    return repository


def _tensors(kind: str, specs: Sequence[TensorSpec], *, ragged: bool) -> str:
    blocks = []
    for spec in specs:
        dims = [-1 if axis in DYNAMIC_AXES else SIZES.get(axis, axis) for axis in spec.shape]
        extra = " allow_ragged_batch: true" if ragged and -1 in dims else ""
        blocks.append(
            f'{kind} {{ name: "{spec.name}" data_type: TYPE_{_TRITON_TYPE[spec.dtype]} '
            f"dims: {dims}{extra} }}\n"
        )
    return "".join(blocks)


_AFTER = 'input { name: "after" data_type: TYPE_FP32 dims: [-1] optional: true }\n'


def _stage_config(model: str) -> str:
    signature = signature_in(model, NATIVE.values())
    parameters = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in PARAMETERS.get(model, {}).items()
    )
    return (
        f'backend: "{BACKENDS[model]}"\nmax_batch_size: 8\n'
        + _tensors("input", signature.inputs, ragged=BACKENDS[model] != "python")
        + (_AFTER if model == "image_preprocess" else "")
        + _tensors("output", signature.outputs, ragged=False)
        + "instance_group { kind: KIND_CPU count: 1 }\n"
        + "dynamic_batching { default_queue_policy { allow_timeout_override: true } }\n"
        + parameters
    )


def _ensemble_config(model: str) -> str:
    signature = TASKS[model]

    def mapped(kind: str, names: Mapping[str, str]) -> str:
        return "".join(
            f' {kind} {{ key: "{key}" value: "{value}" }}' for key, value in names.items()
        )

    steps = "".join(
        f'  step {{ model_name: "{stage}" model_version: -1'
        f"{mapped('input_map', inputs)}{mapped('output_map', outputs)} }}\n"
        for stage, inputs, outputs in ENSEMBLES[model]
    )
    return (
        'platform: "ensemble"\nmax_batch_size: 8\n'
        + _tensors("input", signature.inputs, ragged=False)
        + _tensors("output", signature.outputs, ragged=False)
        + f"ensemble_scheduling {{\n{steps}}}\n"
    )
