"""A repository's bundles as a tree for the terminal, and as plain values for JSON."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from sensorium_export.inspect_repository import Bundle, Stage, Step, Task

_MEGABYTE = 1e6
NO_MANIFEST = "models without a manifest"


def values_from(repository: Path, bundles: Sequence[Bundle]) -> dict[str, Any]:
    """Return plain values for JSON."""
    return {
        "repository": str(repository),
        "bundles": [dataclasses.asdict(bundle) for bundle in bundles],
        "problems": [problem for bundle in bundles for problem in bundle.problems],
    }


def tree_from(repository: Path, bundles: Sequence[Bundle]) -> Tree:
    """Draw bundles, their tasks, the stages of each, and the tensors of each stage."""
    tree = Tree(f"[bold]{escape(str(repository))}[/]")
    for bundle in bundles:
        size = sum(sum(stage.files.values()) for stage in bundle.stages.values())
        branch = tree.add(
            f"[bold]{bundle.name or NO_MANIFEST}[/] · {_counted(len(bundle.tasks), 'task')} · "
            f"{_counted(len(bundle.stages), 'stage')} · {_megabytes(size)}"
        )
        shown = set[str]()
        for task in bundle.tasks:
            _add_task(branch, task, bundle, shown)
        for model in sorted(bundle.stages.keys() - shown):
            _add_stage(branch, bundle.stages[model], None)
    return tree


def _add_task(branch: Tree, task: Task, bundle: Bundle, shown: set[str]) -> None:
    inputs = ", ".join(str(one) for one in task.inputs)
    outputs = ", ".join(str(one) for one in task.outputs)
    node = branch.add(f"[bold cyan]{task.model}[/] · {escape(inputs)} → {escape(outputs)}")
    for step in task.steps:
        stage = bundle.stages.get(step.model)
        if stage is None:
            node.add(f"[bold red]{step.model}[/] · not in this bundle")
        elif step.model in shown:
            node.add(f"[green]{step.model}[/] · as above")
        else:
            _add_stage(node, stage, step)
            shown.add(step.model)


def _add_stage(branch: Tree, stage: Stage, step: Step | None) -> None:
    """Draw a stage; in a task each tensor with the name that it has there, if that is another."""
    lowered = f" · {stage.precision}" if stage.precision else ""
    node = branch.add(f"[green]{stage.model}[/] · {stage.backend}{lowered}")
    for name, size in stage.files.items():
        node.add(f"[dim]{name} · {_megabytes(size)}[/]")
    for graph, figures in stage.parity.items():
        told = " · ".join(f"{name} {value:g}" for name, value in figures.items())
        node.add(f"[dim]{graph} against PyTorch · {told}[/]")
    for arrow, tensors, names in (
        ("←", stage.inputs, step.inputs if step else {}),
        ("→", stage.outputs, step.outputs if step else {}),
    ):
        for tensor in tensors:
            there = names.get(tensor.name, tensor.name)
            other = f" · {there} in the task" if there != tensor.name else ""
            node.add(f"{arrow} {escape(str(tensor))}{other}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.3f} MB"
