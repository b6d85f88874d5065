"""The judge of drawn pictures, proved on real ones, and prompts, layouts and drawing itself."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from sensorium_export.models import ModelConfig
from sensorium_export.models.diffusion import DiffusionImageDecoder
from sensorium_export.models.text_encoder import TextEncoder
from sensorium_training import drawing, journal, tokenizer
from sensorium_training.crowd import crowd_layout, draw_crowd
from sensorium_training.drawing_material import Amount, material
from sensorium_training.drawn import (
    ATTRIBUTES,
    Sampling,
    background_of,
    draw,
    filled_zones,
    grid,
    judge,
)
from sensorium_training.examples import Words
from sensorium_training.layout import (
    UNSAID,
    ZONE_CLASSES,
    LayoutHeads,
    full_prompt,
    loose_prompt,
    prompt,
)
from sensorium_training.reading import MatchPlan, Reader, match_condition
from sensorium_training.world.picture import render
from sensorium_training.world.scene import BACKGROUNDS, Scene, Thing, draw_scene

STAR = Thing(3, 0, 1, 0, 4, 0.5, 0.5, 0.146, 0.1)
SCENE = Scene(2, (STAR, Thing(6, 5, 0, 1, 8, 0.84, 0.82, 0.105, 0)))


def real(count: int, seed: int) -> tuple[NDArray[np.uint8], list[Scene]]:
    """Return pictures as the renderer makes them, at half size, and their scenes."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng) for _ in range(count)]
    pictures = np.stack([render(scene, rng, 128) for scene in scenes])
    halves = pictures.reshape(count, 64, 2, 64, 2, 3).mean((2, 4))
    return halves.astype(np.uint8), scenes


def small_reader(ids: dict[str, int], seed: int) -> tuple[Reader, ModelConfig]:
    """Return a random text encoder, and the config that it fits."""
    torch.manual_seed(seed)
    config = ModelConfig(vocabulary=len(ids), width=32, heads=2, feedforward=32, text_layers=1)
    return Reader(TextEncoder(config).eval(), Words(ids)), config


def test_the_judge_reads_real_pictures() -> None:
    """On pictures that are right by construction nearly every attribute is read right."""
    report = judge(*real(24, 5))

    for name in ("presence", "background", *ATTRIBUTES):
        assert report[name] >= 97, name
    assert report["all"] >= 90


def test_the_judge_is_not_fooled_by_another_scene() -> None:
    """Pictures of other scenes fare as chance has it, and their things do not count as seen."""
    pictures, scenes = real(24, 6)

    report = judge(pictures, [*scenes[1:], scenes[0]])

    assert report["all"] == 0
    assert report["presence"] < 30
    assert all(report[name] < 60 for name in ATTRIBUTES)


def test_an_empty_picture_shows_nothing() -> None:
    """Without things no zone is filled, and no attribute of a described thing is right."""
    empty = np.full((1, 64, 64, 3), 236, np.uint8)

    assert not filled_zones(empty[0], background_of(empty[0])).any()
    report = judge(empty, [SCENE])
    assert report == dict.fromkeys(report, 0.0) | {"background": 100.0}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_one_wrong_attribute_is_that_attribute(name: str) -> None:
    """A scene that differs in one attribute of one thing is found wrong in that alone."""
    picture = render(SCENE, np.random.default_rng(1), 128).reshape(64, 2, 64, 2, 3).mean((1, 3))
    star, ring = SCENE.things
    kept = {field: getattr(star, field) for field in Thing.__slots__}
    other = Scene(2, (Thing(**kept | {name: 1 - min(kept[name], 1)}), ring))

    right = judge(picture[None].astype(np.uint8), [SCENE])
    wrong = judge(picture[None].astype(np.uint8), [other])

    assert right == dict.fromkeys(right, 100.0)
    assert wrong == dict.fromkeys(wrong, 100.0) | {name: 50.0, "all": 0.0}


def test_a_caption_says_everything() -> None:
    """A full prompt labels every zone; what is not there is labelled absent."""
    made = full_prompt(SCENE)

    assert " ".join(made.words).startswith("a large red solid star at the center and a small")
    assert made.zones[:, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert made.zones[4].tolist() == [1, 3, 0, 1, 0]
    assert made.zones[0, 1:].tolist() == [UNSAID] * 4
    assert made.background == 2


def test_loose_prompts_label_only_what_they_say() -> None:
    """Each labelled value of a loose prompt is among its words, and each unsaid one is not."""
    rng = np.random.default_rng(0)
    solid = {"solid", "striped", "dotted"}
    left_out = 0
    for _ in range(100):
        scene = draw_scene(rng)
        made = loose_prompt(rng, scene)
        said = made.zones[[thing.zone for thing in scene.things]]
        assert (said[:, 0] == 1).all()
        textures = [word for word in made.words if word in solid]
        column = [*ZONE_CLASSES].index("texture")
        assert len(textures) == int((said[:, column] != UNSAID).sum())
        assert BACKGROUNDS[scene.background] in made.words
        left_out += int((said == UNSAID).sum())
    assert left_out > 50


def test_a_crowd_is_two_captions_of_one_picture() -> None:
    """More things than a caption names, each in a zone of its own, and the judge can read them."""
    rng = np.random.default_rng(4)
    crowds = [draw_crowd(rng) for _ in range(8)]
    for crowd in crowds:
        zones = [thing.zone for thing in crowd.things]
        assert 6 <= len(zones) == len(set(zones)) <= 9
        assert all(len(scene.things) <= 5 for scene in crowd.scenes)
        assert crowd.scenes[0].background == crowd.scenes[1].background

    pictures = np.stack([crowd.picture(rng, 64) for crowd in crowds])
    report = judge(pictures, [Scene(c.scenes[0].background, c.things) for c in crowds])
    assert min(report[name] for name in ATTRIBUTES) >= 95


def test_each_zone_of_a_crowd_is_read_from_its_own_caption() -> None:
    """A zone's vector is the one that the caption naming its thing gives."""
    reader, config = small_reader(tokenizer.vocabulary(), 0)
    decoder = DiffusionImageDecoder(config)
    crowd = draw_crowd(np.random.default_rng(5))

    (layout,) = crowd_layout(decoder, reader, [crowd])

    for scene in crowd.scenes:
        (alone,) = decoder.condition(*reader.tokens([full_prompt(scene).words])).detach()
        zones = [thing.zone for thing in scene.things]
        torch.testing.assert_close(layout[zones], alone[zones])
        assert not torch.allclose(layout, alone)


def test_every_prompt_is_in_the_vocabulary() -> None:
    """No prompt of any kind has a word that the tokenizer lacks."""
    words, rng = Words(tokenizer.vocabulary()), np.random.default_rng(3)
    for _ in range(300):
        assert words.encode(prompt(rng, draw_scene(rng)).words)


def test_layout_loss_passes_over_what_is_unsaid() -> None:
    """What a prompt leaves open adds nothing to the loss."""
    torch.manual_seed(0)
    made = full_prompt(SCENE)
    heads = LayoutHeads(8)
    layout = torch.randn(1, 10, 8)
    loss, accuracy = heads.loss(layout, [made])
    unsaid = made.zones.copy()
    unsaid[:, 1:] = UNSAID
    partly, _ = heads.loss(layout, [type(made)(made.words, unsaid, UNSAID)])

    assert set(accuracy) == {*ZONE_CLASSES, "background"}
    assert 0 < float(partly.detach()) < float(loss.detach())


def test_noise_keeps_the_variance_and_velocity_gives_the_picture_back() -> None:
    """The definitions of Salimans and Ho hold: x = α·z - σ·v and ε = σ·z + α·v."""
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 4, 3, 8, 8)
    level = torch.tensor([0.0, 0.3, 0.7, 1.0])

    noisy, velocity = drawing.noised(clean, noise, level)

    angle = (level * torch.pi / 2)[:, None, None, None]
    torch.testing.assert_close(angle.cos() * noisy - angle.sin() * velocity, clean)
    torch.testing.assert_close(angle.sin() * noisy + angle.cos() * velocity, noise)
    levels = drawing.noise_levels(1000)
    assert 0 < float(levels.min()) < 0.05
    assert 0.95 < float(levels.max()) < 1
    assert float(levels.median()) == pytest.approx(0.668, abs=0.01)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    """The same text and seed draw the same picture alone and beside a longer text."""
    reader, config = small_reader(tokenizer.vocabulary(), 0)
    decoder = DiffusionImageDecoder(config).eval()
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    texts = [["a", "red", "star"], full_prompt(SCENE).words]

    both = draw(decoder, reader, texts, [1, 2], Sampling(steps=2))
    alone = draw(decoder, reader, texts[:1], [1], Sampling(steps=2))

    assert both.shape == (2, 64, 64, 3)
    assert np.abs(both[0].astype(int) - alone[0]).max() <= 1
    assert grid(np.concatenate([both, both]), 2).shape == (128, 128, 3)


def test_condition_follows_another_text_encoder() -> None:
    """After a short fit, the layout makes of new tokens what it made of the old ones."""
    torch.set_num_threads(1)
    ids = tokenizer.vocabulary()
    old, config = small_reader(ids, 0)
    new, _ = small_reader(ids, 1)
    decoder = DiffusionImageDecoder(config)
    before = {name: weight.clone() for name, weight in decoder.state_dict().items()}

    errors = match_condition(old, new, decoder, MatchPlan(steps=120, batch=16))

    assert np.mean(errors[-10:]) < 0.6 * np.mean(errors[:3])
    changed = {
        name for name, weight in decoder.state_dict().items() if not weight.equal(before[name])
    }
    assert changed
    assert all(name.startswith("layout.") for name in changed)
    assert "layout.unconditional" not in changed


def keep_pictures(cache: Path) -> None:
    """Put a thousand plain pictures where training keeps what it has drawn."""
    pictures = np.zeros((1000, 64, 64, 3), np.uint8)
    pictures[:] = np.arange(1000)[:, None, None, None] % 200
    np.save(cache / "train-64-1k.npy", pictures)


@pytest.mark.slow
def test_drawing_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few texts and pictures lower both losses, and the journal tells.

    A step takes a twentieth of a second by this clock, however fast the machine is.
    """
    ticks = count()
    clock = SimpleNamespace(process_time=lambda: next(ticks) / 20)
    monkeypatch.setattr(drawing, "time", clock)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reader, config = small_reader(tokenizer.vocabulary(), 0)
    plan = drawing.DrawingPlan(
        minutes=0.1, batch=8, reading_steps=60, reading_batch=16, warm_up=10, report_every=10
    )
    decoder = DiffusionImageDecoder(config)
    rng, path = np.random.default_rng(0), tmp_path / "journal.jsonl"
    saved: list[int] = []

    drawing.read(decoder, reader, plan, rng, journal.Journal(path, "reading", 1))
    task = drawing.Drawing(decoder, plan)
    keep_pictures(tmp_path)
    shown = material(decoder, reader, Amount(1, 15), tmp_path, rng)
    layout = [weight.clone() for weight in decoder.layout.parameters()]
    drawing.draw(task, shown, journal.Journal(path, "drawing", 1), lambda: saved.append(task.step))

    reports = journal.read(path)
    reading, pictures = ([r for r in reports if r["stage"] == s] for s in ("reading", "drawing"))
    assert float(reading[-1]["layout_loss"]) < float(reading[0]["layout_loss"])
    losses = [float(report["picture_loss"]) for report in pictures]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert saved[-1] == task.step
    assert all(map(torch.equal, layout, decoder.layout.parameters()))


def test_material_pairs_pictures_with_the_layouts_of_their_texts(tmp_path: Path) -> None:
    """A crowd's layout is that of its captions, and a batch keeps picture and layout together."""
    reader, config = small_reader(tokenizer.vocabulary(), 0)
    decoder = DiffusionImageDecoder(config)
    keep_pictures(tmp_path)

    made = material(decoder, reader, Amount(5, 4), tmp_path, np.random.default_rng(6))

    again = np.random.default_rng(6)
    crowds = [draw_crowd(again) for _ in range(4)]
    for layouts in made.layouts:
        torch.testing.assert_close(
            layouts[:4].float(), crowd_layout(decoder, reader, crowds), atol=4e-3, rtol=0
        )
    assert made.pictures[4:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    clean, layout = made.batch(64)
    for picture, one in zip(clean, layout, strict=True):
        (number,) = {n for n in range(9) if (made.layouts[:, n].float() == one).all((1, 2)).any()}
        restored = (picture.permute(1, 2, 0) + 1) * 127.5
        assert (restored - made.pictures[number]).abs().max() < 0.6


def test_saved_weights_are_the_decoders(tmp_path: Path) -> None:
    """What training saves can be loaded as a decoder, and resuming restores the step."""
    _, config = small_reader(tokenizer.vocabulary(), 0)
    plan = drawing.DrawingPlan()
    first = drawing.Drawing(DiffusionImageDecoder(config), plan)
    first.step, first.minutes = 12, 0.5
    first.save(tmp_path)

    again = drawing.Drawing(DiffusionImageDecoder(config), plan)
    again.resume(tmp_path)

    assert (again.step, again.minutes) == (12, 0.5)
    loaded = drawing.decoder_from(tmp_path / drawing.WEIGHTS_FILE, config)
    for name, weight in loaded.state_dict().items():
        assert weight.equal(first.average.module.state_dict()[name])
    assert set(load_file(tmp_path / drawing.WEIGHTS_FILE)) == set(loaded.state_dict())
