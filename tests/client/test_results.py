import json
from pathlib import Path

import pytest

from sensorium import Client, Drawing, Event, Events, InvalidInputError, Tag, Tags
from sensorium.testing import MockTransport

PNG = b"\x89PNG\r\n\xff\x00"


@pytest.fixture
def client() -> Client:
    """Answer from a mapping, as users' tests do."""
    return Client(
        transport=MockTransport(
            {
                "audio_tagging": {"labels": ["bell", "bark"], "scores": [0.75, 0.25]},
                "event_detection": {
                    "labels": ["bell", "bark", "", ""],
                    "scores": [0.75, 0.5, 0.0, 0.0],
                    "start_s": [0.5, 1.0, 0.0, 0.0],
                    "end_s": [1.5, 1.25, 0.0, 0.0],
                },
                "text_to_image": {"image": PNG},
            }
        )
    )


def test_tags_are_a_ranking(client: Client) -> None:
    """Tags are read as a ranking: the best, those above a threshold, one by one."""
    tags = client.tag_audio(b"sound")

    assert isinstance(tags, Tags)
    assert tags.best == tags[0] == Tag("bell", 0.75)
    assert tags.above(0.25) == tuple(tags)
    assert tags.above(0.5) == (Tag("bell", 0.75),)
    assert tags.above(0.8) == ()
    assert (len(tags), [tag.label for tag in tags]) == (2, ["bell", "bark"])


def test_events_leave_the_padding_out(client: Client) -> None:
    """Empty labels at the end of a row are no events."""
    events = client.detect_events(audio=b"sound")

    assert isinstance(events, Events)
    assert list(events) == [Event("bell", 0.5, 1.5, 0.75), Event("bark", 1.0, 1.25, 0.5)]
    assert events.above(0.6) == (events[0],)
    assert len(events) == 2


def test_new_results_become_json(client: Client) -> None:
    """Tags, events and drawings become JSON without help."""
    tags = json.loads(json.dumps(client.tag_audio(b"sound").as_dict()))
    events = json.loads(json.dumps(client.detect_events(audio=b"sound").as_dict()))
    drawing = json.loads(json.dumps(client.draw("a star").as_dict()))

    assert tags["tags"][0] == {"label": "bell", "score": 0.75}
    assert events["events"][1] == {"label": "bark", "start_s": 1.0, "end_s": 1.25, "score": 0.5}
    assert drawing["png"] == "iVBORw0K/wA="
    for value in (tags, events, drawing):
        assert {"model", "request_id", "timings"} < set(value)


def test_drawings_are_saved(client: Client, tmp_path: Path) -> None:
    """A drawing is saved to the byte; a place that cannot be written is told."""
    drawing = client.draw("a star")

    assert isinstance(drawing, Drawing)
    assert drawing.save(str(tmp_path / "a.png")) == tmp_path / "a.png"
    assert (tmp_path / "a.png").read_bytes() == drawing.png == PNG
    with pytest.raises(InvalidInputError, match=r"cannot write .*: No such file or directory"):
        drawing.save(tmp_path / "no" / "a.png")
    with pytest.raises(InvalidInputError, match="Is a directory"):
        drawing.save(tmp_path)
