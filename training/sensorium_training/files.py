"""The world as files: `python -m sensorium_training.files picture test 4 8 --output here`."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from sensorium_training.dataset import SPLITS, jpeg
from sensorium_training.films import film
from sensorium_training.recordings import FORMATS, recording

PICTURE_SIZE = 256
"""Side of a written picture, pixels."""


def _picture(split: str, index: int) -> tuple[str, bytes]:
    return "jpg", jpeg(split, index, PICTURE_SIZE)


def _recording(split: str, index: int) -> tuple[str, bytes]:
    return FORMATS[index % len(FORMATS)].container.lower(), recording(split, index)


def _film(split: str, index: int) -> tuple[str, bytes]:
    return "mp4", film(split, index)


KINDS: Mapping[str, Callable[[str, int], tuple[str, bytes]]] = {
    "picture": _picture, "recording": _recording, "film": _film,
}  # fmt: skip
"""What can be written: from a split and a number to a file's suffix and bytes."""


def main() -> None:
    """Write the files that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.files",
        description="Write pictures, recordings and films of the playroom as files. "
        "Example: python -m sensorium_training.files film test 46 --output films",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("split", choices=SPLITS)
    parser.add_argument("index", type=int, nargs="+")
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for index in given.index:
        suffix, data = KINDS[given.kind](given.split, index)
        (given.output / f"playroom-{index}.{suffix}").write_bytes(data)


if __name__ == "__main__":
    main()
