"""The video encoder: shared eyes, tracks that follow their objects, and a graph that agrees."""

import numpy as np
import onnxruntime
import pytest
import torch

from sensorium_export.ensembles import ENSEMBLES, signature_in
from sensorium_export.models.cnn import CHANNELS, CnnImageEncoder
from sensorium_export.models.config import ModelConfig
from sensorium_export.models.tracker import Tracker
from sensorium_export.models.video_encoder import VideoEncoder
from sensorium_export.onnx_graph import bytes_from_onnx, onnx_from_module

SIGNATURE = signature_in("video_encoder", ENSEMBLES.values())
CONFIG = ModelConfig(vocabulary=5)
PLACES = torch.tensor([[0.2, 0.2], [0.8, 0.8]])


@pytest.fixture(scope="module")
def encoder() -> VideoEncoder:
    """Build an untrained encoder."""
    torch.manual_seed(0)
    return VideoEncoder(CONFIG, CnnImageEncoder(CONFIG)).eval()


def two_objects(hidden: slice = slice(0, 0)) -> tuple[Tracker, torch.Tensor, torch.Tensor]:
    """Build a tracker that knows objects by a feature, and slots of two; the second may hide."""
    torch.manual_seed(0)
    tracker = Tracker(CONFIG).eval()
    for linear in (tracker.strength, tracker.query, tracker.key):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    tracker.strength.weight.data[0, 0] = 10
    tracker.strength.bias.data[:] = -5
    features = torch.zeros(1, CONFIG.frames, CONFIG.objects, CHANNELS)
    position = torch.rand(1, CONFIG.frames, CONFIG.objects, 2) * 0.1 + 0.45
    features[:, :, :2, 0] = 1
    position[:, :, :2] = PLACES
    for name in ("query", "key"):
        getattr(tracker, name).weight.data[:2, 1:3] = 20 * torch.eye(2)
    features[:, :, 0, 1] = features[:, :, 1, 2] = 1
    features[:, hidden, 1] = 0
    return tracker, features, position


@torch.no_grad()
def test_the_contract_is_kept(encoder: VideoEncoder) -> None:
    """Outputs have the contract's shapes, probabilities lie in [0, 1] and the vector has norm 1."""
    outputs = encoder(torch.randn(2, CONFIG.frames, 3, 64, 64))

    for spec, tensor in zip(SIGNATURE.outputs, outputs, strict=True):
        sizes = [axis if isinstance(axis, int) else CONFIG.sizes[axis] for axis in spec.shape]
        assert list(tensor.shape) == [2, *sizes]
    _, mask, embedding, actions, spans = outputs
    assert mask.dtype == torch.int64
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(actions.sum(-1), torch.ones(2, CONFIG.tracks))
    assert ((spans >= 0) & (spans <= 1)).all()


@torch.no_grad()
def test_select_and_encode_are_the_whole(encoder: VideoEncoder) -> None:
    """What the language stage calls in two steps is what serving calls in one."""
    frames = torch.randn(2, CONFIG.frames, 3, 64, 64)
    described, mean, actions, spans = encoder.select(frames)
    slots, again = encoder.slots(frames)

    assert described.shape == (2, CONFIG.tracks, sum(encoder.parts))
    torch.testing.assert_close((*encoder.encode(described, mean), actions, spans), encoder(frames))
    torch.testing.assert_close(
        (*encoder.track_slots(slots), again), (described, actions, spans, mean)
    )


def test_the_image_encoder_is_shared(encoder: VideoEncoder) -> None:
    """The eyes are the image encoder itself, and the encoder's own weights are few."""
    image_encoder = CnnImageEncoder(CONFIG)
    video_encoder = VideoEncoder(CONFIG, image_encoder)
    own = [p for name, p in encoder.named_parameters() if not name.startswith("image_encoder.")]

    assert video_encoder.image_encoder is image_encoder
    assert sum(p.numel() for p in own) < 420_000


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(encoder: VideoEncoder) -> None:
    """A clip's tokens are the same alone and beside others."""
    frames = torch.randn(3, CONFIG.frames, 3, 64, 64)

    for alone, beside in zip(encoder(frames[1:2]), encoder(frames), strict=True):
        torch.testing.assert_close(alone, beside[1:2], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_order_of_slots_does_not_matter(encoder: VideoEncoder) -> None:
    """Slots of a frame in another order give the same tracks."""
    slots = encoder.slots(torch.randn(1, CONFIG.frames, 3, 64, 64))[0]
    shuffled = torch.stack([frame[torch.randperm(len(frame))] for frame in slots[0]])[None]

    for one, other in zip(encoder.track_slots(slots), encoder.track_slots(shuffled), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_object_starts_one_track() -> None:
    """The first two tracks start at the two objects, in the first frame; the others at nothing."""
    tracker, features, position = two_objects()
    seen = tracker.look(features, position)
    picked, clearness = tracker.pick(seen, seen.strength)

    assert sorted(picked[0, :2].tolist()) == [0, 1]
    assert (clearness[0, :2] > 4).all()
    assert (clearness[0, 2:] < -4).all()


@torch.no_grad()
def test_a_track_knows_when_its_object_is_out_of_sight() -> None:
    """An object that is hidden for some frames is linked to no slot there, and found again."""
    tracker, features, position = two_objects(hidden=slice(5, 9))
    tracker.unseen.data.fill_(4.0)
    seen = tracker.look(features, position)
    links = tracker.follow(seen, torch.tensor([[1]])).exp()[0, 0]

    assert links[5:9, -1].min() > 0.5
    assert links[:5, 1].min() > 0.9
    assert links[9:, 1].min() > 0.9


@torch.no_grad()
def test_places_are_those_of_the_object() -> None:
    """A resting object is at its place at first and in the end, whatever else there is."""
    tracker, features, position = two_objects()
    tracks = tracker(features, position)
    order = tracks.first[0, :2, 0].argsort()

    torch.testing.assert_close(tracks.first[0, order], PLACES, rtol=0, atol=0.01)
    torch.testing.assert_close(tracks.last[0, order], PLACES, rtol=0, atol=0.01)
    assert (tracks.links.exp().sum(-1) - 1).abs().max() < 1e-5


def test_the_graph_agrees(encoder: VideoEncoder) -> None:
    """ONNX Runtime gives what PyTorch gives, for batches of any size."""
    model = onnx_from_module(
        encoder,
        SIGNATURE,
        CONFIG.sizes,
        name="video_encoder",
    )
    session = onnxruntime.InferenceSession(bytes_from_onnx(model))
    for batch in (1, 3):
        frames = torch.randn(batch, CONFIG.frames, 3, 64, 64)
        with torch.no_grad():
            expected = encoder(frames)
        for theirs, ours in zip(
            session.run(None, {"frames": frames.numpy()}), expected, strict=True
        ):
            np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-4)
