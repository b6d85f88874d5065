"""The dimensions and choices of a model, as they lie in a checkpoint's `config.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from sensorium.errors import ConfigurationError

CHOICES = {
    "image_encoder": ("cnn", "vit"),
    "audio_encoder": ("none", "cnn"),
    "video_encoder": ("none", "tracks"),
    "image_decoder": ("none", "diffusion"),
    "fusion": ("cross_attention", "concat"),
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything needed to build a `MultimodalModel`; widths count features, sizes pixels."""

    vocabulary: int
    image_encoder: Literal["cnn", "vit"] = "cnn"
    audio_encoder: Literal["none", "cnn"] = "none"
    video_encoder: Literal["none", "tracks"] = "none"
    image_decoder: Literal["none", "diffusion"] = "none"
    fusion: Literal["cross_attention", "concat"] = "cross_attention"
    width: int = 128
    embedding_dim: int = 128
    heads: int = 4
    feedforward: int = 256
    text_layers: int = 2
    fusion_layers: int = 3
    decoder_layers: int = 2
    image_layers: int = 1
    image_size: int = 64
    patch_size: int = 8
    objects: int = 8
    mels: int = 64
    sounds: int = 12
    heard_events: int = 10
    frames: int = 16
    tracks: int = 8
    actions: int = 14
    layout: int = 10
    max_tokens: int = 64
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        """Check the choices and the head width.

        Raises:
            ConfigurationError: a choice is unknown or needs another one, or `heads` does not divide
                `width`.
        """
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ConfigurationError(
                    f'config.json: model.{name} = "{value}" is not one of: {", ".join(allowed)}'
                )
        if self.video_encoder == "tracks" and self.image_encoder != "cnn":
            raise ConfigurationError(
                f'config.json: model.video_encoder = "tracks" needs model.image_encoder = "cnn", '
                f'it is "{self.image_encoder}"'
            )
        if self.width % self.heads:
            raise ConfigurationError(
                f"config.json: model.width = {self.width} is not a multiple of heads = {self.heads}"
            )

    @property
    def head_dim(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @property
    def kv_layers(self) -> int:
        """Key and value planes in the decoder's cache: two a layer."""
        return 2 * self.decoder_layers

    @property
    def image_tokens(self) -> int:
        """Tokens that the image encoder gives: objects or patches, and one for the whole."""
        if self.image_encoder == "cnn":
            return self.objects + 1
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def audio_tokens(self) -> int:
        """Tokens that the audio encoder gives: events, and one for the whole."""
        return self.heard_events + 1

    @property
    def video_tokens(self) -> int:
        """Tokens that the video encoder gives: tracks, and one for the whole."""
        return self.tracks + 1

    @property
    def sizes(self) -> dict[str, int]:
        """The contract's fixed axis names and their sizes for this model."""
        names = (
            "width", "embedding_dim", "heads", "head_dim", "kv_layers", "image_size",
            "image_tokens", "vocabulary", "mels", "sounds", "audio_tokens", "frames", "tracks",
            "actions", "video_tokens", "layout",
        )  # fmt: skip
        widths = ("media_width", "text_width", "memory_width")
        noise = {"noise_channels": 3, "noise_size": self.image_size}
        named = {name: getattr(self, name) for name in names}
        return named | noise | dict.fromkeys(widths, self.width)

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ModelConfig":
        """Build from JSON values.

        Raises:
            ConfigurationError: a key is unknown or `vocabulary` is missing.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigurationError(
                f"config.json: unknown model keys: {', '.join(unknown)}; "
                f"known: {', '.join(sorted(known))}"
            )
        if "vocabulary" not in values:
            raise ConfigurationError("config.json: model.vocabulary is missing")
        return cls(**values)  # type: ignore[arg-type]
