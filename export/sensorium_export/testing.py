"""A checkpoint with random weights, small enough to export in seconds: for tests, also yours."""

from collections.abc import Collection
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn

from sensorium_export.checkpoint import TOKENIZER_FILE, Checkpoint, load, save
from sensorium_export.models import ModelConfig, MultimodalModel

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
WORDS = (
    *("what", "color", "is", "the", "large", "small", "star"),
    *("circle", "a", "red", "blue", "green", "left", "of"),
)
AUDIO_LABELS = ("beep", "bell", "siren", "drum", "bark")
VIDEO_LABELS = ("stands still", "moves left", "moves up", "grows", "jumps", "blinks")
_SPREAD = 8.0

MODALITIES = ("audio", "video", "drawing")
"""What a checkpoint may have beside text and images."""


def toy_checkpoint(
    path: Path,
    seed: int = 0,
    image_encoder: str = "cnn",
    modalities: Collection[str] = MODALITIES,
) -> Checkpoint:
    """Write a small checkpoint with random weights into `path` and load it.

    Args:
        path: The directory to write, named like the bundle.
        seed: The seed of the weights.
        image_encoder: "cnn" or "vit".
        modalities: Those of the `MODALITIES` that it shall have.
    """
    vocabulary = (*SPECIAL_TOKENS, *WORDS)
    config = ModelConfig(
        vocabulary=len(vocabulary),
        image_encoder=image_encoder,  # type: ignore[arg-type]
        audio_encoder="cnn" if "audio" in modalities else "none",
        video_encoder="tracks" if "video" in modalities else "none",
        image_decoder="diffusion" if "drawing" in modalities else "none",
        width=32,
        embedding_dim=16,
        feedforward=48,
        fusion_layers=1,
        image_size=32,
        objects=4,
        mels=16,
        sounds=len(AUDIO_LABELS),
        heard_events=4,
        frames=4,
        tracks=3,
        actions=len(VIDEO_LABELS),
        max_tokens=16,
        max_new_tokens=6,
    )
    torch.manual_seed(seed)
    model = MultimodalModel(config)
    with torch.no_grad():
        # Otherwise it would say nothing but the start token.
        model.text_decoder.embed.weight[: len(SPECIAL_TOKENS) - 1] = 0
        _settle(model)
        _spread(model)
    save(path, _config(path.name, config), model)
    _tokenizer(vocabulary).save(str(path / TOKENIZER_FILE))
    return load(path)


def _settle(model: MultimodalModel) -> None:
    """Give normalisation layers the statistics of noise: else all inputs would look alike."""
    config = model.config
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - of 1 and 2 axes
            module.momentum = None
    model.train()
    model.image_encoder(torch.randn(8, 3, config.image_size, config.image_size))
    if config.audio_encoder != "none":
        model.audio_encoder(torch.randn(8, 32, config.mels), torch.ones(8, 32, dtype=torch.int64))
    model.eval()


def _spread(model: MultimodalModel) -> None:
    """Enlarge weights whose outputs would be almost the same for every input."""
    config = model.config
    if config.audio_encoder != "none":
        model.audio_encoder.locate.weight[: config.sounds] *= _SPREAD
    if config.video_encoder != "none":
        tracker = model.video_encoder.tracker
        for layer in (tracker.presence, tracker.action, tracker.span):
            layer.weight *= 4 * _SPREAD
    if config.image_decoder != "none":
        # Training starts with some of them at zero.
        for weight in model.image_decoder.parameters():
            if weight.dim() > 1 and not weight.any():
                weight.normal_(std=0.1)


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
        "audio_preprocess": {
            "sample_rate": 16_000,
            "n_fft": 1024,
            "hop": 512,
            "mels": model.mels,
            "min_hz": 50.0,
            "max_hz": 7600.0,
            "mean": -4.0,
            "std": 2.0,
        },
        "audio_labels": AUDIO_LABELS,
        "video_preprocess": {"frames": model.frames},
        "video_labels": VIDEO_LABELS,
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
