"""The whole model: its stages, each built as the config chooses, some of them only if it does."""

from collections.abc import Mapping

from torch import nn

from sensorium_export.models.audio_encoder import AudioEncoder
from sensorium_export.models.cnn import CnnImageEncoder
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_export.models.fusion import ConcatFusion, CrossAttentionFusion
from sensorium_export.models.text_decoder import TextDecoder
from sensorium_export.models.text_encoder import TextEncoder
from sensorium_export.models.video_encoder import VideoEncoder
from sensorium_export.models.vit import VitImageEncoder

IMAGE_ENCODERS: Mapping[str, type[nn.Module]] = {"cnn": CnnImageEncoder, "vit": VitImageEncoder}
FUSIONS: Mapping[str, type[nn.Module]] = {
    "cross_attention": CrossAttentionFusion,
    "concat": ConcatFusion,
}

SHARED: Mapping[str, str] = {"video_encoder.image_encoder.": "image_encoder."}
"""Parts that are another part's too, by the beginnings of their weights' names."""


class MultimodalModel(nn.Module):
    """Stages by their contract names: each is exported as a graph of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        image_encoder = IMAGE_ENCODERS[config.image_encoder](config)
        self.image_encoder = image_encoder
        self.text_encoder = TextEncoder(config)
        self.fusion = FUSIONS[config.fusion](config)
        self.text_decoder = TextDecoder(config)
        if config.audio_encoder != "none":
            self.audio_encoder = AudioEncoder(config)
        if isinstance(image_encoder, CnnImageEncoder) and config.video_encoder != "none":
            self.video_encoder = VideoEncoder(config, image_encoder)
        if config.image_decoder != "none":
            self.image_decoder = DiffusionImageDecoder(config)
