"""The audio encoder: shapes, masks, slots and its ONNX graph."""

from collections.abc import Iterator

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from sensorium_export.ensembles import ENSEMBLES, signature_in
from sensorium_export.models import ModelConfig
from sensorium_export.models.audio_encoder import FEATURES, FRAME_S, AudioEncoder, Heard
from sensorium_export.onnx_graph import bytes_from_onnx, onnx_from_module

CONFIG = ModelConfig(vocabulary=1)
MOST_PARAMETERS = 300_000


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    """Build a random encoder whose normalisations do something and which hears onsets."""
    torch.manual_seed(0)
    encoder = AudioEncoder(CONFIG)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.05, 0.2)  # type: ignore[union-attr]
                module.bias.normal_(0, 0.3)
    return encoder.eval()


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    """Compute no gradients."""
    with torch.no_grad():
        yield


def sound(frames: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Return random log-mels without padding."""
    generator = torch.Generator().manual_seed(frames)
    log_mel = torch.randn(batch, frames, CONFIG.mels, generator=generator)
    return log_mel, torch.ones(batch, frames, dtype=torch.int64)


def test_it_is_small(encoder: AudioEncoder) -> None:
    """The encoder keeps to its share of the bundle's weights."""
    assert sum(p.numel() for p in encoder.parameters()) <= MOST_PARAMETERS


@pytest.mark.parametrize("frames", [1, 126, 2000])
def test_any_length_gives_the_contracts_shapes(encoder: AudioEncoder, frames: int) -> None:
    """From one frame to a minute: the same tokens, and an activity for each frame."""
    tokens, mask, embedding, activity = encoder(*sound(frames))

    assert tokens.shape == (2, CONFIG.audio_tokens, CONFIG.width)
    assert mask.tolist() == [[1] * CONFIG.audio_tokens] * 2
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    assert activity.shape == (2, frames, CONFIG.sounds)
    assert ((activity >= 0) & (activity <= 1)).all()


def test_padding_changes_nothing(encoder: AudioEncoder) -> None:
    """A sound with padding, whatever it holds, gives what it gives alone, and is silent there."""
    log_mel, mask = sound(50, batch=1)
    noise = 5 * torch.randn(1, 30, CONFIG.mels)

    alone = encoder(log_mel, mask)
    padded = encoder(
        torch.cat([log_mel, noise], 1), torch.cat([mask, torch.zeros(1, 30, dtype=torch.int64)], 1)
    )

    for one, other in zip(alone[:3], padded[:3], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone[3], padded[3][:, :50], atol=1e-5, rtol=0)
    assert not padded[3][:, 50:].any()


def test_a_missing_sound_is_masked(encoder: AudioEncoder) -> None:
    """Without a valid frame all tokens are masked, nothing is heard and all is finite."""
    log_mel, mask = sound(3)
    mask[1] = 0

    tokens, token_mask, embedding, activity = encoder(log_mel, mask)

    assert token_mask.tolist() == [[1] * CONFIG.audio_tokens, [0] * CONFIG.audio_tokens]
    assert not activity[1].any()
    assert all(torch.isfinite(each).all() for each in (tokens, embedding, activity))


class Bumps(AudioEncoder):
    """An encoder whose onset logits are given instead of computed."""

    onset: Tensor

    def heard(self, features: Tensor) -> Heard:
        """Replace the onsets."""
        return super().heard(features)._replace(onset=self.onset)


def test_slots_hold_the_onset_peaks_strongest_first() -> None:
    """A slot has its peak's kind, span and probability; a peak's slopes and the rest are empty."""
    encoder = Bumps(CONFIG).eval()
    onset = torch.full((1, 126, CONFIG.sounds), -9.0)
    onset[0, 39:42, 3] = torch.tensor([1.0, 2.0, 1.5])
    onset[0, 60, 3] = 4.0
    onset[0, 60, 7] = 0.0
    encoder.onset = onset
    log_mel, mask = sound(126, batch=1)
    described, mean, _ = encoder.select(log_mel, mask)
    kind, numbers = described[0, :, FEATURES:-3], described[0, :, -3:]
    features = encoder.network(log_mel, mask.float())
    heard = encoder.heard(features)

    assert kind.sum(1).tolist() == [1, 1, 1] + [0] * 7
    assert kind.argmax(1)[:3].tolist() == [3, 3, 7]
    at = [60, 40, 60]
    torch.testing.assert_close(numbers[:3, 0], torch.tensor(at) * FRAME_S + heard.start[0, at])
    torch.testing.assert_close(numbers[:3, 1], heard.duration[0, at])
    torch.testing.assert_close(numbers[:3, 2], torch.tensor([4.0, 2, 0]).sigmoid())
    assert not described[0, 3:].any()
    torch.testing.assert_close(mean, features.mean(1))


def test_the_graph_equals_the_module(encoder: AudioEncoder) -> None:
    """The exported graph gives the module's outputs for one frame, for many and with padding."""
    stage = signature_in("audio_encoder", ENSEMBLES.values())
    model = onnx_from_module(encoder, stage, CONFIG.sizes, name="audio_encoder")
    session = onnxruntime.InferenceSession(
        bytes_from_onnx(model), providers=["CPUExecutionProvider"]
    )
    padded = torch.ones(3, 200, dtype=torch.int64)
    padded[1, 90:] = 0
    padded[2] = 0

    assert encoder.select(*sound(126))[0].any(-1).all(), "every slot is filled"
    for log_mel, mask in (*map(sound, (1, 126, 400)), (sound(200, batch=3)[0], padded)):
        expected = encoder(log_mel, mask)
        found = session.run(None, {"log_mel": log_mel.numpy(), "log_mel_mask": mask.numpy()})
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one, torch.from_numpy(other), atol=1e-4, rtol=0)
