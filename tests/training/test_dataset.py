"""Pictures for training: what the encoder learns from is what it is served."""

from pathlib import Path

import numpy as np

from sensorium_server.settings import load
from sensorium_server.stages import StageConfig, image
from sensorium_training.dataset import jpeg, seen_pixels
from sensorium_training.vision import pixel_values


def test_training_sees_what_serving_sees() -> None:
    """The pixels of stage one equal those of the served stage, from the same JPEG bytes."""
    parameters = {"image_size": "64", "mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"}
    stage = image.stage(StageConfig("image_preprocess", Path(), parameters), load())
    data = jpeg("test", 3)

    served = stage({"image": np.array([[data]], np.object_)})["pixel_values"]
    trained = pixel_values(seen_pixels(data, 64, load())[None])

    np.testing.assert_allclose(trained.numpy(), served, atol=1e-6)
