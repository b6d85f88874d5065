"""The model card: evaluate the checkpoint on held-out seeds and write what came out.

`python -m sensorium_training.card` writes `card.json`, `MODEL_CARD.md` and, where there is a
training journal, `learning_curve.png` beside the weights.
"""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer

from sensorium_export import checkpoint
from sensorium_export.models import MultimodalModel
from sensorium_training import journal
from sensorium_training.curve import draw
from sensorium_training.drawn import Sampling
from sensorium_training.evaluate import evaluate
from sensorium_training.evaluate_drawing import evaluate_drawing
from sensorium_training.evaluate_media import evaluate_clips, evaluate_joint, evaluate_sounds
from sensorium_training.evaluate_noise import evaluate_noise
from sensorium_training.examples import Words
from sensorium_training.train import TrainingPlan

AIMS: Mapping[str, float] = MappingProxyType(
    {
        **{f"pictures.answers.{kind}": 98 for kind in ("color", "shape", "size", "texture")},
        **{f"pictures.answers.{kind}": 90 for kind in ("exist", "where", "extreme")},
        **{f"pictures.answers.{kind}": 80 for kind in ("relation", "compare", "same")},
        "pictures.answers.background": 98,
        "pictures.answers.count": 85,
        "pictures.captions.bleu4": 94,
        "pictures.retrieval.text_to_image_r1": 97,
        "pictures.retrieval.image_to_text_r1": 97,
        "sounds.tagging.accuracy": 97,
        "sounds.events.f1": 90,
        "sounds.retrieval.text_to_audio_r1": 85,
        "sounds.retrieval.audio_to_text_r1": 85,
        "clips.actions.exact": 95,
        "clips.answers.overall": 88,
        "clips.captions.bleu4": 85,
        "clips.retrieval.text_to_video_r1": 85,
        "clips.retrieval.video_to_text_r1": 85,
        "drawing.judge.attributes": 85,
    }
)
"""The least percentage that each figure should reach on held-out seeds."""

MISSED: Mapping[str, str] = MappingProxyType({})
"""Aims that the published checkpoint does not reach, and why."""

JOURNAL_FILE = "journal.jsonl"
CURVE_FILE = "learning_curve.png"
TEXT_FILE = "card_text.md"


def reached(figures: Mapping[str, Any], path: str) -> float:
    """Return the figure at a dotted path."""
    found: Any = figures
    for name in path.split("."):
        found = found[name]
    return float(found)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _table(figures: Mapping[str, Any], path: str) -> str:
    """Return all figures under a dotted path as the rows of a table, with their aims."""
    found: Any = figures
    for name in path.split("."):
        found = found[name]
    return "\n".join(
        _row(name.replace("_", " "), value, AIMS.get(f"{path}.{name}", ""))
        for name, value in found.items()
    )


class _Fields(dict[str, str]):
    """What the card's text may name: figures by path, `table:` and a path for all below it."""

    def __init__(self, card: Mapping[str, Any]) -> None:
        super().__init__()
        self._card = card

    def __missing__(self, key: str) -> str:
        if key.startswith("table:"):
            return _table(self._card["figures"], key.removeprefix("table:"))
        found: Any = self._card
        for name in key.split("."):
            found = found[name]
        return f"{found:,}" if isinstance(found, int) else str(found)


def markdown(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown: the text of `card_text.md` with its fields filled in."""
    text = resources.files("sensorium_training").joinpath(TEXT_FILE).read_text(encoding="utf-8")
    fields = _Fields(card)
    fields["millions"] = f"{card['parameters'] / 1e6:.2f}"
    fields["megabytes"] = f"{card['weights_bytes'] / 1e6:.1f}"
    fields["noise_rows"] = "\n".join(
        _row(level, by_step["none"], by_step["spectral_gate"])
        for level, by_step in card["figures"]["sounds"]["noise"].items()
    )
    fields["missed"] = (
        "\n".join(
            f"Missed: `{path}`, {reached(card['figures'], path)} of {AIMS[path]}, because {why}."
            for path, why in MISSED.items()
        )
        or "All aims are met."
    )
    fields["curve"] = CURVE_FILE
    fields["effort"] = "\n".join(
        _row(name, f"{stage['steps']:,.0f}", f"{stage['core_minutes']:.0f}")
        for name, stage in card["training"].items()
    )
    return re.sub(r"\{([^{}]+)\}", lambda match: fields[match[1]], text)


def _effort(reports: list[dict[str, float | str]]) -> dict[str, dict[str, float]]:
    """Return steps and core-minutes of each stage in a journal."""
    effort: dict[str, dict[str, float]] = {}
    for report in reports:
        effort[str(report["stage"])] = {
            "steps": float(report["step"]), "core_minutes": float(report["core_minutes"]),
        }  # fmt: skip
    return effort


def words_from_tokenizer(path: Path) -> Words:
    """Return the vocabulary of a tokenizer file."""
    return Words(Tokenizer.from_file(str(path)).get_vocab())


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is evaluated."""

    pictures: int = 2000
    recordings: int = 2000
    clips: int = 2000
    noisy: int = 300
    prompts: int = 500


def figures_of(
    model: MultimodalModel, words: Words, cache: Path, amount: Amount
) -> dict[str, dict[str, Any]]:
    """Return all figures, by what they are about."""
    sounds = evaluate_sounds(model, words, cache, amount.recordings)
    return {
        "pictures": evaluate(model, words, cache, amount.pictures),
        "sounds": {**sounds, "noise": evaluate_noise(model.audio_encoder, amount.noisy)},
        "clips": evaluate_clips(model, words, cache, amount.clips),
        "joint": evaluate_joint(model, words, cache, min(amount.pictures, amount.recordings)),
        "drawing": evaluate_drawing(model, words, amount.prompts, Sampling()),
    }


def _journal(cache: Path) -> str:
    """Return the lines of all stages' journals."""
    stages = ("journal", "hearing", "watching", "drawing")
    paths = [cache / f"{stage}.jsonl" for stage in stages]
    return "".join(path.read_text() for path in paths if path.exists())


def parse() -> tuple[argparse.Namespace, Amount, str]:
    """Return what the command line says, and the command that says so."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.card",
        description="Evaluate a checkpoint and write its model card. "
        "Example: python -m sensorium_training.card --prompts 500",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    amount = Amount()
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/playroom"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    for name, number in asdict(amount).items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument(
        "--json", action="store_true", help="print the figures as JSON, write nothing"
    )
    given = parser.parse_args()
    amount = Amount(**{name: getattr(given, name) for name in asdict(amount)})
    changed = (f"--{k} {v}" for k, v in asdict(amount).items() if v != getattr(Amount(), k))
    return given, amount, " ".join(["python -m sensorium_training.card", *changed])


def main() -> None:
    """Evaluate, then write the card."""
    given, amount, command = parse()
    torch.set_num_threads(1)
    loaded = checkpoint.load(given.checkpoint)
    words = words_from_tokenizer(loaded.tokenizer_path)
    figures = figures_of(loaded.model, words, given.cache, amount)
    if given.json:
        print(json.dumps(figures))  # noqa: T201 - the command's output
        return
    if fresh := _journal(given.cache):
        (given.checkpoint / JOURNAL_FILE).write_text(fresh)
    reports = journal.read(given.checkpoint / JOURNAL_FILE)
    draw(reports, given.checkpoint / CURVE_FILE)
    plan = TrainingPlan(given.checkpoint, given.cache)
    card = {
        "name": loaded.name,
        "command": command,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "weights_bytes": (given.checkpoint / checkpoint.WEIGHTS_FILE).stat().st_size,
        "training_pictures": plan.pictures,
        "training_recordings": plan.recordings,
        "training_clips": plan.clips,
        "training": _effort(reports),
        "figures": figures,
    }
    (given.checkpoint / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (given.checkpoint / "MODEL_CARD.md").write_text(markdown(card))


if __name__ == "__main__":
    main()
