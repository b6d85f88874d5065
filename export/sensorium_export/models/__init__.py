"""The networks of our own bundles, one concept a file; the config chooses among them."""

from sensorium_export.models.config import ModelConfig
from sensorium_export.models.multimodal import MultimodalModel

__all__ = ["ModelConfig", "MultimodalModel"]
