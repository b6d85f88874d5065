"""The whole model: its stages, each built as the config chooses."""

from collections.abc import Mapping

from torch import nn

from sensorium_export.models.cnn import CnnImageEncoder
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.fusion import ConcatFusion, CrossAttentionFusion
from sensorium_export.models.text_decoder import TextDecoder
from sensorium_export.models.text_encoder import TextEncoder
from sensorium_export.models.vit import VitImageEncoder

IMAGE_ENCODERS: Mapping[str, type[nn.Module]] = {"cnn": CnnImageEncoder, "vit": VitImageEncoder}
FUSIONS: Mapping[str, type[nn.Module]] = {
    "cross_attention": CrossAttentionFusion,
    "concat": ConcatFusion,
}


class MultimodalModel(nn.Module):
    """Stages by their contract names: each is exported as a graph of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = IMAGE_ENCODERS[config.image_encoder](config)
        self.text_encoder = TextEncoder(config)
        self.fusion = FUSIONS[config.fusion](config)
        self.text_decoder = TextDecoder(config)
