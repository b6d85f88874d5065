"""Clips and films: same seed same film, every action does what its name says, nobody overlaps."""

import io
import math

import av
import numpy as np
import pytest

from sensorium_server.settings import load
from sensorium_server.stages.framing import Framing
from sensorium_server.stages.video import sampled_frames
from sensorium_training.clip_labels import labels_from_clips
from sensorium_training.films import SAMPLED, clip_and_rng, clips, film
from sensorium_training.world import film as drawn
from sensorium_training.world.motion import ACTIONS, Actor, Clip, Pose, pose
from sensorium_training.world.scene import HELD_OUT_PAIRS, RADIUS_RANGES, Thing
from sensorium_training.world.sound import CLIP_S
from sensorium_training.world.waveform import RATE

CLIPS = clips("validation", 300)
TIMES = np.linspace(0, CLIP_S, 97).tolist()
HEADING = {
    "moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1),
}  # fmt: skip


def actor_of(name: str, reach: float = 0.0, x: float = 0.5, partner: int | None = None) -> Actor:
    """Build an actor at (x, 0.5) that acts from second 1 to second 3."""
    thing = Thing(0, 0, 0, 0, 4, x, 0.5, 0.1, 0)
    return Actor(thing, ACTIONS.index(name), 1.0, 3.0, partner, reach)


def way_of(actor: Actor, times: list[float]) -> list[Pose]:
    """Return the actor's poses at some times."""
    return [pose(actor, None, t) for t in times]


def test_a_seed_is_a_clip() -> None:
    """The same split and index give the same clip, and no split repeats another's."""
    assert clips("train", 3) == clips("train", 3)
    assert clips("train", 3)[1:] == clips("train", 2, start=1)
    assert not set(clips("train", 40)) & set(CLIPS)


def test_every_action_happens() -> None:
    """A few hundred clips show every action, one to four actors, with sounds and without."""
    assert {actor.action for clip in CLIPS for actor in clip.actors} == set(range(len(ACTIONS)))
    assert {len(clip.actors) for clip in CLIPS} == {1, 2, 3, 4}
    assert 0.4 < sum(clip.sounds is None for clip in CLIPS) / len(CLIPS) < 0.6


def test_actors_differ_and_stand_in_reading_order() -> None:
    """No two share colour and shape or a zone; zones are thirds of the picture and ascend."""
    for clip in CLIPS:
        things = [actor.thing for actor in clip.actors]
        zones = [thing.zone for thing in things]
        assert len({thing.pair for thing in things}) == len(things)
        assert zones == sorted(set(zones))
        assert zones == [int(thing.y * 3) * 3 + int(thing.x * 3) for thing in things]


def test_held_out_pairs_are_only_where_they_belong() -> None:
    """Training clips never show a held-out colour and shape; the held-out split always does."""
    for clip in clips("train", 200):
        assert not {actor.thing.pair for actor in clip.actors} & HELD_OUT_PAIRS
    for clip in clips("held_out_pairs", 100):
        assert {actor.thing.pair for actor in clip.actors} & HELD_OUT_PAIRS


def test_spans_lie_inside_the_clip() -> None:
    """Actions last one to 2.5 s (fading 0.3 to 0.6 s) with calm before and after."""
    for actor in (actor for clip in CLIPS for actor in clip.actors):
        length, name = actor.end_s - actor.start_s, ACTIONS[actor.action]
        if name == "stands still":
            assert (actor.start_s, actor.end_s) == (0, CLIP_S)
            continue
        least, most = (0.3, 0.6) if name in {"appears", "disappears"} else (1.0, 2.5)
        assert least <= length <= most
        assert 0.2 <= actor.start_s < actor.end_s <= CLIP_S - 0.2


def test_nobody_overlaps_or_leaves_the_picture() -> None:
    """At every time all stay inside and keep apart by their radii; who collides may touch."""
    for clip in CLIPS:
        for t in TIMES:
            poses = clip.poses(t)
            for i, a in enumerate(poses):
                assert all(a.radius - 0.01 <= v <= 1.01 - a.radius for v in (a.x, a.y))
                for b in poses[:i]:
                    assert math.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius - 1e-6


def test_sizes_are_those_at_first() -> None:
    """Who grows was small and ends large, who shrinks the other way round."""
    small, large = RADIUS_RANGES
    for actor in (actor for clip in CLIPS for actor in clip.actors):
        first, last = (pose(actor, None, t).radius for t in (0, CLIP_S))
        if ACTIONS[actor.action] == "grows":
            assert (actor.thing.size, small[0] <= first <= small[1]) == (0, True)
            assert large[0] <= last <= large[1]
        elif ACTIONS[actor.action] == "shrinks":
            assert (actor.thing.size, large[0] <= first <= large[1]) == (1, True)
            assert small[0] <= last <= small[1]
        else:
            assert first == last


@pytest.mark.parametrize("name", HEADING)
def test_moves_go_their_way(name: str) -> None:
    """A move goes straight, never back, and as far as its reach."""
    way = way_of(actor_of(name, 0.3), TIMES)
    along = [(p.x - 0.5) * HEADING[name][0] + (p.y - 0.5) * HEADING[name][1] for p in way]
    across = [(p.x - 0.5) * HEADING[name][1] + (p.y - 0.5) * HEADING[name][0] for p in way]

    assert along == sorted(along)
    assert (along[0], along[-1]) == pytest.approx((0, 0.3))
    assert across == pytest.approx([0] * len(way))


def test_shakes_swing_to_both_sides() -> None:
    """A shake swings left and right of its place several times and comes to rest there."""
    way = np.array([p.x - 0.5 for p in way_of(actor_of("shakes", 0.05), TIMES)])

    assert way.min() < -0.045
    assert way.max() > 0.045
    assert (np.diff(np.sign(way[np.abs(way) > 0.01])) != 0).sum() >= 8
    assert way[-1] == 0


def test_circles_keep_their_distance_from_a_centre() -> None:
    """A circle goes round a point beside the start and ends where it began."""
    way = way_of(actor_of("circles", 0.08), TIMES)
    distance = [math.hypot(p.x - 0.5, p.y - 0.58) for p in way]

    assert distance == pytest.approx([0.08] * len(way))
    assert (way[-1].x, way[-1].y) == pytest.approx((0.5, 0.5))
    assert max(p.y for p in way) == pytest.approx(0.66, abs=1e-3)


def test_jumps_go_up_and_come_back() -> None:
    """A jump is highest in the middle of its span, by its reach."""
    way = way_of(actor_of("jumps", 0.2), [0.0, 1.5, 2.0, 2.5, 4.0])

    assert [p.y for p in way] == pytest.approx([0.5, 0.35, 0.3, 0.35, 0.5])
    assert all(p.x == 0.5 for p in way)


def test_visibility() -> None:
    """Who appears was not there before, who disappears is not there after, blinks come and go."""
    times = [0.9, 1.5, 2.5, 3.1]
    opacity = {
        name: [p.visible for p in way_of(actor_of(name), times)]
        for name in ("appears", "disappears", "stands still")
    }
    blinks = [p.visible for p in way_of(actor_of("blinks"), [0.9, 1.1, 1.4, 1.6, 1.9, 3.1])]

    assert opacity["appears"] == [0, 0.25, 0.75, 1]
    assert opacity["disappears"] == [1, 0.75, 0.25, 0]
    assert opacity["stands still"] == [1, 1, 1, 1]
    assert blinks == [1, 0, 1, 0, 1, 1]


def test_who_collides_touches_its_partner_and_rebounds() -> None:
    """Two meet in the middle of their span and end where they began."""
    a, b = actor_of("collides", x=0.2, partner=1), actor_of("collides", x=0.8, partner=0)
    clip = Clip(0, (a, b), None)
    apart = [abs(p.x - q.x) for p, q in (clip.poses(t) for t in (0, 1.5, 2, 2.5, 4))]

    assert apart == pytest.approx([0.6, 0.4, 0.2, 0.4, 0.6])


def test_drawn_partners_know_each_other() -> None:
    """Collisions are drawn in pairs over one span, side by side or one above the other."""
    for clip in CLIPS:
        for i, actor in enumerate(clip.actors):
            assert (actor.partner is not None) == (ACTIONS[actor.action] == "collides")
            if actor.partner is not None:
                other = clip.actors[actor.partner]
                assert other.partner == i
                assert (other.start_s, other.end_s) == (actor.start_s, actor.end_s)
                assert other.thing.x == actor.thing.x or other.thing.y == actor.thing.y


@pytest.mark.parametrize(("size", "fps"), [(64, 8), (96, 5), (160, 12)])
def test_frames_of_any_size_and_rate(size: int, fps: int) -> None:
    """A clip is drawn at any size and frame rate, its first frame much like the clip's start."""
    clip, rng = clip_and_rng("test", 0)
    pictures = drawn.frames(clip, rng, size, fps)

    assert pictures.shape == (CLIP_S * fps, size, size, 3)
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 12


def test_a_film_is_the_same_again() -> None:
    """The same number gives the same bytes of a file."""
    assert film("test", 1, sound=False) == film("test", 1, sound=False)


def test_the_server_sees_what_was_drawn() -> None:
    """The sampled frames are the drawn ones of those moments, but for the encoder's loss."""
    clip, rng = clip_and_rng("test", 2)
    rng.spawn(1)
    pictures = drawn.frames(clip, rng)
    seen, seconds = sampled_frames(film("test", 2), load(), SAMPLED, Framing(drawn.FILM_SIZE))

    assert seconds == CLIP_S
    assert np.abs(seen.astype(int) - pictures[1::2]).mean() < 6


def test_sound_leaves_the_picture_alone() -> None:
    """A clip with sounds makes a film with a sound track of its length, and the same picture."""
    index = next(i for i, clip in enumerate(CLIPS) if clip.sounds is not None)
    with_sound, silent = (film("validation", index, sound=sound) for sound in (True, False))
    one, other = (sampled_frames(f, load(), SAMPLED, Framing(64))[0] for f in (with_sound, silent))

    with av.open(io.BytesIO(with_sound), "r") as file:
        samples = [frame.to_ndarray().size for frame in file.decode(file.streams.audio[0])]
    with av.open(io.BytesIO(silent), "r") as file:
        assert not file.streams.audio
    assert sum(samples) / RATE == pytest.approx(CLIP_S, abs=0.15)
    np.testing.assert_array_equal(one, other)


def test_labels_know_where_everyone_is() -> None:
    """Labels hold each actor's places at the sampled moments and its slot where it is visible."""
    a, b = actor_of("disappears", x=0.2), actor_of("moves up", 0.3, x=0.8)
    labels = labels_from_clips([Clip(0, (a, b), None)], SAMPLED)
    position = labels.place[:, [1, 0]].transpose(1, 2)
    slots = labels.slots(position, labels.visible[:, [1, 0]].transpose(1, 2).clamp(min=0.5))

    assert labels.present.tolist() == [[True, True, False, False]]
    assert labels.span[0, 0].tolist() == [0.25, 0.75]
    assert labels.ends[0, 1].tolist() == pytest.approx([0.8, 0.5, 0.8, 0.2])
    assert slots[0, 1].tolist() == [0] * SAMPLED
    assert slots[0, 0].tolist() == [1] * 11 + [2] * 5
    assert slots[0, 2].tolist() == [2] * SAMPLED
