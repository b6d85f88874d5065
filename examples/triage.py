"""A toy of triage: markers on a picture and a patient's note become an urgency.

THIS IS A TOY, NOT A MEDICAL DEVICE. The patients, markers, rules and points are made up; nothing
here may guide the care of anybody. It shows how answers about a picture and words of a text are
joined into one decision whose reasons can be read.

A nurse is imagined to have put markers on a board: a red cross for bleeding, a purple triangle
for a burn, yellow circles for swellings; a large marker is a grave finding.

Run it against a server: .venv/bin/python examples/triage.py --url localhost:8001
"""

import argparse
import io
import re
from typing import NamedTuple

from PIL import Image, ImageDraw

from sensorium import Client

WARNING = "A toy, not a medical device: made-up patients, made-up rules."
SIDE_PX = 512
RADII = {"small": 0.105, "large": 0.146}


class Marker(NamedTuple):
    """What was put on the board, and where its middle is in parts of the board's side."""

    size: str
    kind: str
    x: float
    y: float


PATIENTS = {
    "A": (
        (Marker("large", "bleeding", 0.5, 0.2), Marker("small", "swelling", 0.2, 0.8)),
        "Fell from a ladder, dizzy, short of breath.",
    ),
    "B": (
        (Marker("small", "swelling", 0.2, 0.2), Marker("small", "swelling", 0.8, 0.8)),
        "Twisted an ankle. Fever since yesterday, no chest pain.",
    ),
    "C": ((Marker("small", "swelling", 0.5, 0.5),), "A bee sting, no fever, not dizzy."),
}
FINDINGS = {
    "is there a red cross": ("bleeding", 3),
    "is there a purple triangle": ("burn", 3),
    "is there a large thing": ("grave", 2),
}
PHRASES = {"unconscious": 5, "chest pain": 4, "short of breath": 4, "fever": 1, "dizzy": 1}
LEVELS = ((7, "immediate"), (3, "urgent"), (0, "can wait"))


def board(markers: tuple[Marker, ...]) -> bytes:
    """Draw the markers on a gray board; return its PNG bytes."""
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    for marker in markers:
        if marker.kind == "bleeding":
            draw.rectangle(placed(marker, (-0.38, -0.95), (0.38, 0.95)), fill=(214, 40, 40))
            draw.rectangle(placed(marker, (-0.95, -0.38), (0.95, 0.38)), fill=(214, 40, 40))
        elif marker.kind == "burn":
            corners = placed(marker, (0, -1), (0.89, 0.78), (-0.89, 0.78))
            draw.polygon(corners, fill=(125, 45, 165))
        else:
            draw.ellipse(placed(marker, (-0.92, -0.92), (0.92, 0.92)), fill=(245, 215, 40))
    file = io.BytesIO()
    image.resize((128, 128), Image.Resampling.BOX).save(file, "PNG")
    return file.getvalue()


def placed(marker: Marker, *points: tuple[float, float]) -> list[tuple[float, float]]:
    """Turn points in units of the marker's radius into pixels of the board."""
    size, _, x, y = marker
    return [(SIDE_PX * (x + RADII[size] * u), SIDE_PX * (y + RADII[size] * v)) for u, v in points]


def seen(client: Client, picture: bytes) -> dict[str, int]:
    """Ask about the board; return the findings with their points."""
    points = {
        finding: value
        for question, (finding, value) in FINDINGS.items()
        if client.ask(picture, question).text == "yes"
    }
    count = client.ask(picture, "how many yellow circles are there").text
    if count.isdigit() and int(count):
        points[f"swelling x {count}"] = int(count)
    return points


def read(note: str) -> dict[str, int]:
    """Find the key phrases that the note states and does not deny."""
    words = note.lower()
    return {
        phrase: points
        for phrase, points in PHRASES.items()
        if re.search(rf"(?<!no )(?<!not )\b{phrase}\b", words)
    }


def main() -> None:
    """Print each patient's urgency with the reasons for it, the most urgent first."""
    parser = argparse.ArgumentParser(description=WARNING)
    parser.add_argument("--url", default="localhost:8001", help="where the server is")
    options = parser.parse_args()
    print(WARNING)
    with Client(options.url) as client:
        found = {n: seen(client, board(m)) | read(note) for n, (m, note) in PATIENTS.items()}
    for name, reasons in sorted(found.items(), key=lambda item: -sum(item[1].values())):
        points = sum(reasons.values())
        level = next(level for least, level in LEVELS if points >= least)
        print(f"patient {name}  {level:9}  {points:2} points: {', '.join(reasons) or 'nothing'}")


if __name__ == "__main__":
    main()
