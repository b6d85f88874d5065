from pathlib import Path

from harness.bundles import RECIPES
from harness.inputs import Columns, Inputs
from sensorium.contract import TASKS

COLUMNS: Columns = {
    "text": (b"a", b"\xff", b"c"),
    "seed": (1, 2, 3),
    "steps": (4, 4, 4),
    "guidance_scale": (2.0,) * 3,
}


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    """Bytes and numbers come back from the file as they were, in their types."""
    path = tmp_path / "new" / "text_to_image.json"
    Inputs("text_to_image", COLUMNS).save(path)

    assert Inputs.load("text_to_image", path) == Inputs("text_to_image", COLUMNS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_batches_are_whole() -> None:
    """A batch has as many rows as it is called, and what is left over is left out."""
    (batch,) = Inputs("text_to_image", COLUMNS).batches(2)

    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "text": ((2, 1), "object"),
        "seed": ((2, 1), "int64"),
        "steps": ((2, 1), "int64"),
        "guidance_scale": ((2, 1), "float32"),
    }
    assert batch["text"].ravel().tolist() == [b"a", b"\xff"]


def test_every_task_has_a_source_for_each_input() -> None:
    """What is measured is sent whole: the sources are named as the task's inputs are."""
    for recipe in RECIPES.values():
        for task, sources in recipe.tasks.items():
            assert set(sources) == {spec.name for spec in TASKS[task].inputs}, task
