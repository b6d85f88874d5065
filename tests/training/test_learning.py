"""Losses, labels and evaluation: known values, and a few steps that learn."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorium_export.models import ModelConfig, MultimodalModel
from sensorium_training import dataset, journal, tokenizer
from sensorium_training.curve import draw
from sensorium_training.entities import AUDIO, IMAGE, VIDEO
from sensorium_training.evaluate import (
    Answered,
    about_held_out,
    calibration_error,
    generate,
    retrieving,
    see,
)
from sensorium_training.examples import Words
from sensorium_training.hearing import hear
from sensorium_training.labels import labels_from_scenes
from sensorium_training.language import JOINT, LanguagePlan, LanguageTask, look, train_language
from sensorium_training.losses import info_nce, next_token_loss
from sensorium_training.material import Material
from sensorium_training.train import grown, model_config
from sensorium_training.vision import VisionPlan, cnn_of, learned_by_vision, train_vision
from sensorium_training.watching import watch
from sensorium_training.workers import Worker
from sensorium_training.world.caption import caption
from sensorium_training.world.motion import draw_clip
from sensorium_training.world.question import Question
from sensorium_training.world.scene import Scene, Thing, draw_scene
from sensorium_training.world.sound import draw_sounds


def test_next_token_loss_ignores_padding() -> None:
    """Padding neither helps nor hurts."""
    logits = torch.randn(1, 3, 5)
    short = next_token_loss(logits[:, :2], torch.tensor([[3, 4]]))
    padded = next_token_loss(logits, torch.tensor([[3, 4, tokenizer.PAD_ID]]))

    torch.testing.assert_close(short, padded)


def test_info_nce_of_strangers_is_the_logarithm_of_their_number() -> None:
    """When all similarities are equal, InfoNCE is ln n."""
    same = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    loss = info_nce(same, same, torch.eye(8, dtype=torch.bool), torch.tensor(0.0))

    assert float(loss) == pytest.approx(math.log(8), rel=1e-5)


def test_info_nce_of_perfect_pairs_vanishes() -> None:
    """When each pair is alike and all else is orthogonal, a sharp InfoNCE is near nothing."""
    loss = info_nce(
        torch.eye(8), torch.eye(8), torch.eye(8, dtype=torch.bool), torch.tensor(math.log(100))
    )

    assert float(loss) < 1e-6


def test_labels_know_the_cell_of_each_thing() -> None:
    """A thing at (0.3, 0.9) lies in column 2 of row 7 of an 8 × 8 grid."""
    scene = Scene(2, (Thing(1, 2, 1, 0, 6, 0.3, 0.9, 0.15, 0),))
    labels = labels_from_scenes([scene])

    assert labels.present.tolist() == [[True, False, False, False, False]]
    assert labels.cells(8)[0, 0] == 7 * 8 + 2
    assert labels.attributes[0, 0].tolist() == [1, 2, 1, 0]


def test_calibration_error_of_the_overconfident() -> None:
    """Answers given with 0.95 that are right half the time are off by 45 points."""
    question = Question("color", answer="red")
    answered = [Answered(question, "red" if i % 2 else "blue", 0.95) for i in range(100)]

    assert calibration_error(answered) == pytest.approx(45)


def test_held_out_questions_are_about_one_new_thing() -> None:
    """A question counts for the compositional test only if its one referent is a new pair."""
    pink_star, red_star = (Thing(3, color, 0, 0, 0, 0.2, 0.2, 0.1, 0) for color in (7, 0))
    scene = Scene(0, (pink_star, red_star))

    assert about_held_out(Question("size", nouns=[(3, [0])]), scene)
    assert not about_held_out(Question("size", nouns=[(3, [1])]), scene)
    assert not about_held_out(Question("size", nouns=[(3, [0, 1])]), scene)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Draw a thousand small pictures once for a test."""
    return tmp_path / "cache"


@pytest.mark.slow
def test_both_stages_learn(cache: Path) -> None:
    """A few dozen steps of each stage lower its losses, and the journal tells."""
    torch.set_num_threads(1)
    ids = tokenizer.vocabulary()
    model = MultimodalModel(ModelConfig(vocabulary=len(ids), width=64, feedforward=64))
    pictures = dataset.pixels("train", 1000, 64, cache)
    scenes = dataset.scenes("train", 1000)
    labels = labels_from_scenes(scenes)
    path, worker = cache / "journal.jsonl", Worker(0, 1)

    encoder = cnn_of(model)
    train_vision(
        worker, encoder, pictures, labels, plan=VisionPlan(steps=100, batch=32), journal_path=path
    )
    material = {IMAGE: Material.of(IMAGE, scenes, look(encoder, pictures), encoder.encode)}
    plan = LanguagePlan(
        steps=100, questions={IMAGE: 64}, captions={IMAGE: 8}, rows=16, pairs=32, save_every=50
    )
    saved: list[int] = []
    task = LanguageTask(model, Words(ids), material, plan)
    log = journal.Journal(path, "language", 1)
    train_language(worker, task, log, learned_by_vision(encoder), lambda: saved.append(1))

    reports = journal.read(path)
    vision, language = ([r for r in reports if r["stage"] == s] for s in ("vision", "language"))
    for stage, name in (
        (vision, "loss"),
        (language, "image_caption_loss"),
        (language, "retrieval_loss"),
    ):
        assert float(stage[-1][name]) < float(stage[0][name])
    assert float(vision[-1]["color"]) > 0.5
    assert saved == [1, 1]
    draw(reports, cache / "curve.png")
    assert (cache / "curve.png").stat().st_size > 10_000


def test_everything_is_learned_together() -> None:
    """One step gives gradients to fusion, decoder and each modality's encoder, and reports all."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    ids = tokenizer.vocabulary()
    model = MultimodalModel(model_config())
    image, audio, video = cnn_of(model), model.audio_encoder, model.video_encoder
    noise = rng.integers(0, 256, (8, 16, 64, 64, 3), np.uint8)
    mels = rng.standard_normal((8, 20, 64)).astype(np.float16)

    def heard(described: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return audio.encode(described, mean, torch.ones(len(described), dtype=torch.int64))

    worlds = [draw(rng) for draw in (draw_scene, draw_clip, draw_sounds) for _ in range(8)]
    material = {
        IMAGE: Material.of(IMAGE, worlds[:8], look(image, noise[:, 0]), image.encode),
        VIDEO: Material.of(VIDEO, worlds[8:16], watch(video, noise), video.encode),
        AUDIO: Material.of(AUDIO, worlds[16:], hear(audio, mels), heard),  # type: ignore[arg-type]
    }
    counts = {IMAGE: 6, AUDIO: 6, VIDEO: 6, JOINT: 6}
    plan = LanguagePlan(questions=counts, captions={IMAGE: 2, VIDEO: 2}, rows=4, pairs=8)
    task = LanguageTask(model, Words(ids), material, plan)

    report = task.backward(dict.fromkeys(material, np.arange(8)), rng, retrieve=True)

    assert {f"{kind}_loss" for kind in counts} | {"retrieval_loss"} <= report.keys()
    for part in (model.fusion, model.text_decoder, image, audio, video):
        gradient = part.get_parameter("norm.weight").grad
        assert gradient is not None
        assert float(gradient.abs().sum()) > 0


def test_a_larger_vocabulary_keeps_what_was_learned() -> None:
    """Weights of a smaller vocabulary fill the first rows; the new words keep their own."""
    small, large = (
        MultimodalModel(ModelConfig(vocabulary=size, width=16, heads=2)) for size in (10, 13)
    )
    weights = grown(dict(small.state_dict()), large)["text_encoder.embed.weight"]

    assert torch.equal(weights[:10], small.text_encoder.embed.weight)
    assert torch.equal(weights[10:], large.text_encoder.embed.weight[10:])


def test_generation_stops_and_scores_within_bounds() -> None:
    """Greedy decoding returns at most the limit of tokens and a probability for each row."""
    torch.manual_seed(0)
    model = MultimodalModel(ModelConfig(vocabulary=12, width=16, heads=2, feedforward=16)).eval()
    ids, scores = generate(model, torch.randn(3, 4, 16), torch.ones(3, 4, dtype=torch.int64), 7)

    assert all(len(row) <= 7 for row in ids)
    assert all(0 < score <= 1 for score in scores)


def test_untrained_retrieval_is_near_chance(cache: Path) -> None:
    """A random model finds about one in a hundred: the figure can be low."""
    torch.set_num_threads(1)
    ids = tokenizer.vocabulary()
    model = MultimodalModel(ModelConfig(vocabulary=len(ids), width=16, heads=2)).eval()
    pictures = dataset.pixels("test", 1000, 64, cache)

    report = retrieving(
        model, Words(ids), see(model, "test", np.concatenate([pictures, pictures])), caption
    )

    assert set(report) >= {"text_to_image_r1", "image_to_text_r10"}
    assert report["text_to_image_r1"] < 5


def test_journal_lines_are_json(tmp_path: Path) -> None:
    """Each report is one JSON line with stage, step and core-minutes."""
    path = tmp_path / "journal.jsonl"
    journal.Journal(path, "vision", 2).report(50, loss=1.5)

    line = json.loads(path.read_text())
    assert line["stage"] == "vision"
    assert line["step"] == 50
    assert line["loss"] == 1.5
