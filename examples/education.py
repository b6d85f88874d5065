"""A quiz about a picture and a clip: the model knows the answers, the pupil gives them.

The lessons are drawn here, in the simple shapes that the default bundle knows. Nobody wrote down
the right answers: the server is asked, and the pupil's answer is held against its.

Run it against a server: .venv/bin/python examples/education.py --url localhost:8001
With --demo an imaginary pupil answers, who makes one mistake.
"""

import argparse
import io
from collections.abc import Mapping
from typing import NamedTuple

import av
import numpy as np
from PIL import Image, ImageDraw

from sensorium import Client

INK = {"red": (214, 40, 40), "yellow": (245, 215, 40), "blue": (40, 70, 215)}
SIDE_PX, OVERSAMPLING, RADIUS = 64, 8, 0.146
CLIP_S, FPS = 4, 8


class Shape(NamedTuple):
    """A shape and its middle, in parts of the picture's side."""

    color: str
    kind: str
    x: float
    y: float


LESSONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "picture": (
        ("what color is the square", "red"),
        ("how many circles are there", "2"),
        ("is the square above the yellow circle", "yes"),
        ("where is the blue circle", "left"),
    ),
    "clip": (
        ("what does the red square do", "moves right"),
        ("what does the blue circle do", "moves up"),
        ("what happens first", "moves right"),
    ),
}
"""Questions, each with what the pupil of the demo answers."""


def drawn(*shapes: Shape) -> Image.Image:
    """Draw squares and circles on white, with smooth edges."""
    side = SIDE_PX * OVERSAMPLING
    image = Image.new("RGB", (side, side), (236, 236, 232))
    draw = ImageDraw.Draw(image)
    for color, kind, x, y in shapes:
        reach = RADIUS * (0.92 if kind == "circle" else 0.8)
        box = [side * value for value in (x - reach, y - reach, x + reach, y + reach)]
        (draw.ellipse if kind == "circle" else draw.rectangle)(box, fill=INK[color])
    return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)


def picture() -> bytes:
    """Return a PNG of three shapes."""
    file = io.BytesIO()
    circles = (Shape("yellow", "circle", 0.5, 0.8), Shape("blue", "circle", 0.82, 0.5))
    drawn(Shape("red", "square", 0.5, 0.2), *circles).save(file, "PNG")
    return file.getvalue()


def clip() -> bytes:
    """Return an MP4 in which a square moves right, and then a circle moves up."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", FPS, {"crf": "16"})
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        for number in range(CLIP_S * FPS):
            right, up = (part(number / FPS, start_s) for start_s in (0.5, 2.25))
            square = Shape("red", "square", 0.2 + 0.35 * right, 0.2)
            circle = Shape("blue", "circle", 0.82, 0.82 - 0.35 * up)
            frame = av.VideoFrame.from_ndarray(np.asarray(drawn(square, circle)), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def part(time_s: float, start_s: float, length_s: float = 1.5) -> float:
    """Return how much of a movement is done, 0 to 1, with a soft start and end."""
    done = min(max((time_s - start_s) / length_s, 0.0), 1.0)
    return done * done * (3 - 2 * done)


def main() -> None:
    """Ask every question, check the answers and count the correct ones."""
    parser = argparse.ArgumentParser(description="A quiz about a picture and a clip.")
    parser.add_argument("--url", default="localhost:8001", help="where the server is")
    parser.add_argument("--lesson", choices=LESSONS, help="only this one")
    parser.add_argument("--demo", action="store_true", help="let an imaginary pupil answer")
    options = parser.parse_args()
    correct = total = 0
    with Client(options.url) as client:
        asking = {"picture": (client.ask, picture), "clip": (client.ask_video, clip)}
        for lesson in [options.lesson] if options.lesson else LESSONS:
            ask, make = asking[lesson]
            media = make()
            for question, demo in LESSONS[lesson]:
                answer = demo if options.demo else input(f"{lesson}: {question}? ")
                truth = ask(media, question).text
                is_correct = answer.strip().lower() == truth.lower()
                correct, total = correct + is_correct, total + 1
                verdict = "correct" if is_correct else f"wrong, it is {truth}"
                print(f"{lesson:8}{question:40}{answer:14}{verdict}")
    print(f"{correct} of {total} correct")


if __name__ == "__main__":
    main()
