"""The model card: evaluate the checkpoint on held-out seeds and write what came out.

`python -m sensorium_training.card` writes `card.json`, `MODEL_CARD.md` and, where there is a
training journal, `learning_curve.png` beside the weights.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from sensorium_export import checkpoint
from sensorium_training import journal
from sensorium_training.curve import draw
from sensorium_training.evaluate import evaluate
from sensorium_training.examples import Words

AIMS: Mapping[str, float] = {
    "color": 98, "shape": 98, "size": 98, "texture": 98, "background": 98, "exist": 90,
    "where": 90, "extreme": 90, "count": 85, "relation": 80, "compare": 80, "same": 80,
}  # fmt: skip
JOURNAL_FILE = "journal.jsonl"
CURVE_FILE = "learning_curve.png"

_TEXT = """# Model card: {name}

A small multimodal model, trained from nothing on a procedural world, that ships with Sensorium as
its default bundle. It answers questions about pictures of simple objects, captions them and
retrieves them by words. {parameters:.2f} million parameters, {megabytes:.1f} MB of weights.

**Not for** photographs, people or anything outside the playroom: there it should say
"I don't know", and often will not.

## Figures

`{command}` gave all of these. {pictures:,} pictures from seeds that training never
used, each judged from its JPEG bytes; {questions:,} questions, one of every kind about each picture
that allows it. Exact match, in percent.

| question | answered right | aim |
|---|---|---|
{answers}

"unknown" holds questions outside the grammar, and about things that are not there; the right answer
is "I don't know". The probability that comes with each answer is off by {calibration_error}
points on average (expected calibration error, 10 bins).

| task | figure | value | aim |
|---|---|---|---|
| captions | BLEU-4 | {bleu4} | 94 |
| captions | exact | {exact} | |
{retrieval}

Retrieval ranks a gallery of 1,000 pictures whose captions all differ.

Colour and shape pairs that occur in no training picture (pink star, cyan heart, orange cross, green
ring), questions about just such a thing:

| question | answered right |
|---|---|
{held_out}

## Training

{training}

![learning curve]({curve})

Nothing but seeds goes in: `make train` draws {drawn:,} pictures, teaches the image network the
renderer's dense labels (stage one), then fixes it and teaches text encoder, fusion, decoder and
both contrastive heads (stage two). Why it is done so:
[decision 5](../../docs/decisions/0005-training-the-playroom.md).
"""


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def markdown(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    figures, training = card["figures"], card["training"]
    retrieval = figures["retrieval"]
    return _TEXT.format(
        name=card["name"],
        command=card["command"],
        parameters=card["parameters"] / 1e6,
        megabytes=card["weights_bytes"] / 1e6,
        answers="\n".join(_row(k, v, AIMS.get(k, "")) for k, v in figures["answers"].items()),
        bleu4=figures["captions"]["bleu4"],
        exact=figures["captions"]["exact"],
        retrieval="\n".join(
            _row("retrieval", name.replace("_", " "), value, 97 if name.endswith("r1") else "")
            for name, value in retrieval.items()
        ),
        held_out="\n".join(_row(k, v) for k, v in figures["held_out_pairs"].items()),
        training="\n".join(
            f"- stage {name}: {stage['steps']:,.0f} steps a worker, "
            f"{stage['core_minutes']:.0f} core-minutes"
            for name, stage in training.items()
        ),
        curve=CURVE_FILE,
        drawn=card["training_pictures"],
        pictures=figures["pictures"],
        questions=figures["questions"],
        calibration_error=figures["calibration_error"],
    )


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


def main() -> None:
    """Evaluate, then write the card."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.card",
        description="Evaluate a checkpoint and write its model card. "
        "Example: python -m sensorium_training.card --pictures 2000",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/playroom"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument(
        "--json", action="store_true", help="print the figures as JSON, write nothing"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = checkpoint.load(given.checkpoint)
    words = words_from_tokenizer(loaded.tokenizer_path)
    figures = evaluate(loaded.model, words, given.cache, given.pictures)
    if given.json:
        print(json.dumps(figures))  # noqa: T201 - the command's output
        return
    fresh = given.cache / JOURNAL_FILE
    if fresh.exists():
        shutil.copy(fresh, given.checkpoint / JOURNAL_FILE)
    reports = journal.read(given.checkpoint / JOURNAL_FILE)
    draw(reports, given.checkpoint / CURVE_FILE)
    card = {
        "name": loaded.name,
        "command": f"python -m sensorium_training.card --pictures {given.pictures}",
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "weights_bytes": (given.checkpoint / checkpoint.WEIGHTS_FILE).stat().st_size,
        "training_pictures": 80_000,
        "training": _effort(reports),
        "figures": figures,
    }
    (given.checkpoint / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (given.checkpoint / "MODEL_CARD.md").write_text(markdown(card))


if __name__ == "__main__":
    main()
