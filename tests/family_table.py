"""The table of families in `docs/families.md`, made of the checkpoints that tests export."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sensorium_export.source import open_source

_MARKED = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- table -->)", re.DOTALL)
_HEAD = "| `model_type` | class | stages | tasks | parameters tested |\n|---|---|---|---|---|\n"


def table(directories: Iterable[Path]) -> str:
    """Return a row for each directory, by `model_type` and class."""
    return _HEAD + "".join(sorted(map(_row, directories)))


def replaced(document: str, rows: str) -> str:
    """Return the document with another table between its marks."""
    assert _MARKED.search(document), "docs/families.md has lost its `<!-- table -->` marks"
    return _MARKED.sub(lambda _: rows, document)


def _config(path: Path) -> dict[str, Any]:
    """Return what a directory calls itself."""
    file, index = path / "config.json", path / "model_index.json"
    if index.is_file():
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
        return {"model_type": "model_index.json", "architectures": [name]}
    if not file.is_file():
        return {"model_type": "open_clip", "architectures": ["open_clip_config.json"]}
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def _row(path: Path) -> str:
    config = _config(path)
    source = open_source(path)
    recipe = source.recipe
    count = sum(weight.numel() for weight in source.model.parameters())
    cells = (
        f"`{config['model_type']}`",
        f"`{config['architectures'][0]}`",
        ", ".join(f"`{stage}`" for stage in recipe.stages if not stage.endswith("process")),
        ", ".join(f"`{task}`" for task in recipe.tasks),
        f"{count:,} at random",
    )
    return f"| {' | '.join(cells)} |\n"
