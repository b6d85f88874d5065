"""The docs of families, made of the checkpoints that tests export: a table and a page for each."""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sensorium_export
from sensorium_export.families import FAMILIES, PIPELINES
from sensorium_export.source import Source, open_source

_MARKED = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- table -->)", re.DOTALL)
_MODULES = Path(sensorium_export.__file__).parent / "families"
_PIPELINE = "model_index.json"
_HEAD = "| `model_type` | class | stages | tasks | parameters tested |\n|---|---|---|---|---|\n"
_PAGE = """\
# {title}

{about}

## Exported, served and proven by the tests

{rows}
Each was held against the library itself, from the bytes of a file to the answer over gRPC and
HTTP, within {tolerances} ([all of it](../families.md)).

{asked}"""
_PAGE_HEAD = "| class | stages | tasks | parameters, at random |\n|---|---|---|---|\n"
_COMMAND = "    sensorium export ./{name} --repository model_repository\n    sensorium {words}\n"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One checkpoint: what it calls itself, and what was made of it."""

    kind: str
    architecture: str
    source: Source

    @classmethod
    def of(cls, path: Path) -> "_Entry":
        """Read a directory."""
        config = _config(path)
        return cls(config["model_type"], config["architectures"][0], open_source(path))

    @property
    def module(self) -> str:
        """The family's module."""
        return (
            PIPELINES[self.architecture] if self.kind == _PIPELINE else FAMILIES[self.kind].module
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """Its class, stages, tasks and size."""
        stages, tasks = self.source.recipe.stages, self.source.recipe.tasks
        count = sum(weight.numel() for weight in self.source.model.parameters())
        return (
            f"`{self.architecture}`",
            ", ".join(f"`{stage}`" for stage in stages if not stage.endswith("process")),
            ", ".join(f"`{task}`" for task in tasks),
            f"{count:,}",
        )


def table(directories: Iterable[Path]) -> str:
    """Return a row for each directory, by `model_type` and class."""
    entries = map(_Entry.of, directories)
    rows = [
        f"| [`{one.kind}`](families/{one.module}.md) | {' | '.join(one.cells)} at random |\n"
        for one in entries
    ]
    return _HEAD + "".join(sorted(rows))


def replaced(document: str, rows: str) -> str:
    """Return the document with another table between its marks."""
    assert _MARKED.search(document), "docs/families.md has lost its `<!-- table -->` marks"
    return _MARKED.sub(lambda _: rows, document)


def pages(directories: Mapping[str, Path], asked: Mapping[str, Sequence[object]]) -> dict[str, str]:
    """Return a page for each family's module, by its name.

    Args:
        directories: A checkpoint of each bundle.
        asked: The words of the command that asks it.
    """
    by_module: dict[str, dict[str, _Entry]] = {}
    for name, path in directories.items():
        entry = _Entry.of(path)
        by_module.setdefault(entry.module, {})[name] = entry
    return {module: _page(module, entries, asked) for module, entries in by_module.items()}


def _page(module: str, entries: Mapping[str, _Entry], asked: Mapping[str, Sequence[object]]) -> str:
    written = ast.get_docstring(ast.parse((_MODULES / f"{module}.py").read_text()))
    title, _, about = (written or "").partition("\n\n")
    rows = "".join(sorted(f"| {' | '.join(one.cells)} |\n" for one in entries.values()))
    tolerance = next(iter(entries.values())).source.recipe.tolerance
    commands = "\n".join(
        _COMMAND.format(name=name, words=_words(name, asked[name]))
        for name in sorted(entries)
        if name in asked
    )
    return _PAGE.format(
        title=title.replace("\n", " ").rstrip("."),
        about=about,
        rows=_PAGE_HEAD + rows,
        tolerances=f"{tolerance.stage:g} of a stage's largest value, {tolerance.embedding:g} in an "
        f"embedding's elements,\na cosine of {tolerance.cosine} and {tolerance.score:g} of a score",
        asked=commands,
    )


def _words(name: str, words: Sequence[object]) -> str:
    quoted = (f'"{word}"' if " " in str(word) else str(word) for word in words)
    return f"{' '.join(quoted)} --bundle {name}"


def _config(path: Path) -> dict[str, Any]:
    """Return what a directory calls itself."""
    file, index = path / "config.json", path / _PIPELINE
    if index.is_file():
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
        return {"model_type": _PIPELINE, "architectures": [name]}
    if not file.is_file():
        return {"model_type": "open_clip", "architectures": ["open_clip_config.json"]}
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config
