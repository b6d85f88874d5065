"""Find products by words and recommend similar ones by their pictures.

Every product is drawn here: a coloured shape, as logos and tokens are, which is what the default
bundle knows. Texts and pictures are embedded in one space, so a cosine compares any two of them.

Run it against a server: .venv/bin/python examples/retail.py --url localhost:8001
"""

import argparse
import io
from collections.abc import Mapping

from PIL import Image, ImageDraw

from sensorium import Client, Embedding, SensoriumError

COLORS = {
    "red": (214, 40, 40),
    "yellow": (245, 215, 40),
    "green": (45, 160, 60),
    "blue": (40, 70, 215),
}
PRODUCTS = {
    f"{color}-{shape}-{size}": (color, shape, size)
    for color, shape in [
        ("red", "circle"),
        ("red", "diamond"),
        ("yellow", "ring"),
        ("yellow", "square"),
        ("green", "triangle"),
        ("green", "square"),
        ("blue", "circle"),
        ("blue", "triangle"),
    ]
    for size in ("small", "large")
}
RADII = {"small": 0.105, "large": 0.146}
SIDE_PX = 512


def picture(color: str, shape: str, size: str) -> bytes:
    """Draw a product in the middle of a white square; return its PNG bytes."""
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), (236, 236, 232))
    draw, ink = ImageDraw.Draw(image), COLORS[color]

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [
            (SIDE_PX * (0.5 + RADII[size] * x), SIDE_PX * (0.5 + RADII[size] * y))
            for x, y in points
        ]

    if shape == "circle":
        draw.ellipse(at((-0.92, -0.92), (0.92, 0.92)), fill=ink)
    elif shape == "ring":
        width = round(0.66 * RADII[size] * SIDE_PX)
        draw.ellipse(at((-0.98, -0.98), (0.98, 0.98)), outline=ink, width=width)
    elif shape == "square":
        draw.rectangle(at((-0.8, -0.8), (0.8, 0.8)), fill=ink)
    elif shape == "triangle":
        draw.polygon(at((0, -1), (0.89, 0.78), (-0.89, 0.78)), fill=ink)
    else:
        draw.polygon(at((0, -1), (0.8, 0), (0, 1), (-0.8, 0)), fill=ink)
    file = io.BytesIO()
    image.resize((128, 128), Image.Resampling.BOX).save(file, "PNG")
    return file.getvalue()


def embedded(client: Client) -> dict[str, Embedding]:
    """Embed the catalogue once, many pictures at a time."""
    pictures = [picture(*product) for product in PRODUCTS.values()]
    catalogue = {}
    for name, result in zip(PRODUCTS, client.embed_images(pictures), strict=True):
        if isinstance(result, SensoriumError):
            raise result
        catalogue[name] = result
    return catalogue


def closest(
    query: Embedding, catalogue: Mapping[str, Embedding], top_k: int
) -> list[tuple[float, str]]:
    """Rank the catalogue by its cosine to the query."""
    scored = [(query.similarity(embedding), name) for name, embedding in catalogue.items()]
    return sorted(scored, reverse=True)[:top_k]


def show(title: str, hits: list[tuple[float, str]]) -> None:
    """Print a small table."""
    print(title)
    for similarity, name in hits:
        print(f"  {similarity:6.3f}  {name}")


def main() -> None:
    """Answer each search, then recommend what looks like its best hit."""
    parser = argparse.ArgumentParser(
        description="Find and recommend products by words and pictures."
    )
    parser.add_argument(
        "words", nargs="*", default=["a large red diamond", "a small blue triangle"]
    )
    parser.add_argument("--url", default="localhost:8001", help="where the server is")
    parser.add_argument("--top-k", type=int, default=2, help="how many to show")
    options = parser.parse_args()
    with Client(options.url) as client:
        catalogue = embedded(client)
        for words in options.words:
            hits = closest(client.embed_text(words), catalogue, options.top_k)
            show(f"search: {words}", hits)
            best = hits[0][1]
            others = {name: vector for name, vector in catalogue.items() if name != best}
            show(f"similar to {best}", closest(catalogue[best], others, options.top_k))


if __name__ == "__main__":
    main()
