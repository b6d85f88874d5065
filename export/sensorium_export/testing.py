"""A checkpoint with random weights, small enough to export in seconds: for tests, also yours."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from sensorium_export.checkpoint import TOKENIZER_FILE, Checkpoint, load, save
from sensorium_export.models import ModelConfig, MultimodalModel

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
WORDS = (
    *("what", "color", "is", "the", "large", "small", "star"),
    *("circle", "a", "red", "blue", "green", "left", "of"),
)


def toy_checkpoint(path: Path, seed: int = 0, image_encoder: str = "cnn") -> Checkpoint:
    """Write a small checkpoint with random weights into `path` and load it.

    Args:
        path: The directory to write, named like the bundle.
        seed: The seed of the weights.
        image_encoder: "cnn" or "vit".
    """
    vocabulary = (*SPECIAL_TOKENS, *WORDS)
    config = ModelConfig(
        vocabulary=len(vocabulary),
        image_encoder=image_encoder,  # type: ignore[arg-type]
        width=32,
        embedding_dim=16,
        feedforward=48,
        fusion_layers=1,
        image_size=32,
        objects=4,
        max_tokens=16,
        max_new_tokens=6,
    )
    torch.manual_seed(seed)
    model = MultimodalModel(config)
    with torch.no_grad():
        # Otherwise it would say nothing but the start token.
        model.text_decoder.embed.weight[: len(SPECIAL_TOKENS) - 1] = 0
    save(path, _config(path.name, config), model)
    _tokenizer(vocabulary).save(str(path / TOKENIZER_FILE))
    return load(path)


def _config(name: str, model: ModelConfig) -> dict[str, object]:
    return {
        "name": name,
        "model": model.to_dict(),
        "image_preprocess": {
            "image_size": model.image_size,
            "resample": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "crop": "squash",
        },
        "text": {
            "max_tokens": model.max_tokens,
            "pad_id": 0,
            "unk_id": 1,
            "bos_id": 2,
            "eos_id": 3,
            "max_new_tokens": model.max_new_tokens,
        },
    }


def _tokenizer(vocabulary: tuple[str, ...]) -> Tokenizer:
    ids = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace("?", "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
