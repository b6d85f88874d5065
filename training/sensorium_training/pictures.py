"""Playroom pictures as files: `python -m sensorium_training.pictures test 4 8 --output here`."""

import argparse
from pathlib import Path

from sensorium_training.dataset import SPLITS, jpeg


def main() -> None:
    """Write the pictures that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m sensorium_training.pictures",
        description="Write playroom pictures as JPEG files. "
        "Example: python -m sensorium_training.pictures test 4 8 --output pictures",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("split", choices=SPLITS)
    parser.add_argument("index", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=256, help="side in pixels")
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for index in given.index:
        path = given.output / f"playroom-{index}.jpg"
        path.write_bytes(jpeg(given.split, index, given.size))


if __name__ == "__main__":
    main()
