"""Inputs as file bytes, and questions: drawn from seeds, so that a verification can be repeated.

Every way in which a picture may be stored is among them: JPEG plain, progressive, grey, CMYK and
turned by EXIF; PNG with palette, transparency and 16 bits; WebP; GIF; sizes down to one pixel. How
sounds and clips are stored is in `probes_media`.
"""

import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageDraw
from tokenizers import Tokenizer

from sensorium.contract import TASKS
from sensorium.errors import ConfigurationError
from sensorium_export.probes_media import drawn_clip, drawn_sound

SIZES = ((64, 64), (128, 128), (320, 240), (241, 97), (65, 63), (33, 190), (500, 375), (7, 5))
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white", "black", "gray")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
QUESTIONS_FILE = "probes.json"
_TRIES = 10
MEDIA = frozenset({"image", "audio", "video"})
MOST_STEPS = 4
"""Of drawing: each step is like the one before, so a few prove as much as many."""

GUIDANCE_SCALES = (1.0, 3.0, 0.0, 7.5, 1.5)


Value = bytes | int | float
"""One input of a task."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One input of every task; `name` and `number` find it again."""

    name: str
    number: int
    image: bytes
    question: str
    audio: bytes = b""
    video: bytes = b""

    def given(self, task: str) -> dict[str, Value]:
        """Return a task's inputs by name.

        Of the tasks that take two media, every third probe leaves out the first and every third
        the second: it is empty.
        """
        text = self.question.encode()
        values: dict[str, Value] = {
            "image": self.image,
            "audio": self.audio,
            "video": self.video,
            "question": text,
            "text": text,
            "seed": self.number,
            "steps": 1 + self.number % MOST_STEPS,
            "guidance_scale": GUIDANCE_SCALES[self.number % len(GUIDANCE_SCALES)],
        }
        names = [spec.name for spec in TASKS[task].inputs]
        media = [name for name in names if name in MEDIA]
        missing = media[self.number % 3 - 1] if len(media) > 1 and self.number % 3 else None
        return {name: b"" if name == missing else values[name] for name in names}


def probes(
    count: int,
    questions: Sequence[str],
    pictures: Path | None = None,
    seed: int = 0,
    media: Collection[str] = MEDIA,
) -> list[Probe]:
    """Return that many drawn pictures and all real ones, each with a question, a sound and a clip.

    Args:
        count: How many pictures to draw.
        questions: Dealt out in turn.
        pictures: A folder of picture files to use as well.
        seed: Another seed draws other pictures, sounds and clips.
        media: "audio" and "video" are drawn only if they are among them.
    """
    drawn = (drawn_picture(seed, number) for number in range(count))
    named = [*drawn, *_pictures_in(pictures)]
    return [
        _with_media(Probe(name, number, image, questions[number % len(questions)]), seed, media)
        for number, (name, image) in enumerate(named)
    ]


def _with_media(probe: Probe, seed: int, media: Collection[str]) -> Probe:
    """Draw a sound and a clip as well, and tell so in the name."""
    if "audio" in media:
        way, audio = drawn_sound(seed, probe.number)
        probe = replace(probe, name=f"{probe.name}; {way}", audio=audio)
    if "video" in media:
        way, video = drawn_clip(seed, probe.number)
        probe = replace(probe, name=f"{probe.name}; {way}", video=video)
    return probe


def drawn_picture(seed: int, number: int) -> tuple[str, bytes]:
    """Draw one picture and store it in one of the ways, by turns; return its name and bytes."""
    random = np.random.default_rng((seed, number))
    ways = list(WAYS.items())
    way, store = ways[number % len(ways)]
    width, height = (1, 1) if number == len(ways) else SIZES[number // 2 % len(SIZES)]
    picture = _scene(random, width, height)
    return f"{number}: {way} {width}x{height}", store(picture)


def questions_of(
    checkpoint: Path,
    count: int,
    max_tokens: int,
    max_chars: int,
    tokenizer_path: Path | None = None,
) -> list[str]:
    """Return the checkpoint's probe questions, texts that are hard to get right, and more.

    Args:
        checkpoint: The directory; its probes.json, if it has one, is a list of questions.
        count: How many different texts to return at least, filled up with words at random.
        max_tokens: The longest text that the model takes.
        max_chars: The longest text that the server takes.
        tokenizer_path: Its tokenizer.json, where that lies elsewhere.

    Raises:
        ConfigurationError: The checkpoint's probes.json is not a list of texts.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_path or checkpoint / "tokenizer.json"))
    known = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    written = _written_questions(checkpoint / QUESTIONS_FILE)
    words = [word for text in written for word in text.split()] or known
    hard = [
        _longest(words, tokenizer, max_tokens, max_chars),
        words[0],
        words[0].upper() + " !?",
        f"zyzzyva {words[-1]} żółć 日本",
        "zyzzyva",
    ]
    hard = [text for text in hard if _fits(text, tokenizer, max_tokens, max_chars)]
    texts = dict.fromkeys([*hard, *written])
    for text in _random_texts(known, _TRIES * count, max_tokens):
        if len(texts) >= count:
            break
        if _fits(text, tokenizer, max_tokens, max_chars):
            texts[text] = None
    return list(texts)


def _random_texts(words: Sequence[str], count: int, max_words: int) -> Iterator[str]:
    random = np.random.default_rng(0)
    for length in random.integers(1, max_words + 1, count):
        yield " ".join(str(word) for word in random.choice(words, length))


def _fits(text: str, tokenizer: Tokenizer, max_tokens: int, max_chars: int) -> bool:
    return len(text) <= max_chars and len(tokenizer.encode(text).ids) <= max_tokens


def _written_questions(path: Path) -> list[str]:
    if not path.is_file():
        return []
    written = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(written, list) or not all(isinstance(one, str) for one in written):
        raise ConfigurationError(f"{path.parent.name}/{path.name} is not a list of texts")
    return written


def _longest(words: Sequence[str], tokenizer: Tokenizer, max_tokens: int, max_chars: int) -> str:
    """Return the longest text that both limits let through."""
    text = words[0]
    for word in sorted(words, key=len) * max_tokens:
        longer = f"{text} {word}"
        if not _fits(longer, tokenizer, max_tokens, max_chars):
            break
        text = longer
    return text


def _pictures_in(folder: Path | None) -> Iterator[tuple[str, bytes]]:
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURE_SUFFIXES:
            yield path.name, path.read_bytes()


def _scene(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw some shapes on a plain, graded or noisy ground."""
    ground = random.integers(0, 256, 3)
    pixels = np.broadcast_to(ground, (height, width, 3)).astype(np.float64)
    if random.random() < 1 / 3:
        pixels = pixels * np.linspace(0.3, 1, width)[None, :, None]
    elif random.random() < 1 / 2:
        pixels = pixels + random.normal(0, 25, pixels.shape)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(1, 6))):
        side = min(width, height) * random.uniform(0.12, 0.4)
        left, top = random.uniform(0, width - side), random.uniform(0, height - side)
        box = (left, top, left + side, top + side)
        colour = COLOURS[int(random.integers(len(COLOURS)))]
        shape = random.integers(3)
        if shape == 0:
            draw.ellipse(box, fill=colour)
        elif shape == 1:
            draw.rectangle(box, fill=colour)
        else:
            middle = (left + side / 2, top)
            draw.polygon((middle, (left, top + side), (left + side, top + side)), fill=colour)
    return picture


def _stored(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _with_exif(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return _stored(picture, "JPEG", quality=92, exif=exif)


def _with_alpha(picture: Image.Image) -> Image.Image:
    layer = picture.convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(picture.size))
    return layer


def _with_16_bits(picture: Image.Image) -> Image.Image:
    grey = np.asarray(picture.convert("L")).astype(np.uint16)
    return Image.fromarray(grey * 257)


def _animated(picture: Image.Image) -> bytes:
    second = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _stored(
        picture, "WEBP", save_all=True, append_images=[second], duration=100, lossless=True
    )


WAYS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda one: _stored(one, "JPEG", quality=90),
    "PNG": lambda one: _stored(one, "PNG"),
    "WebP": lambda one: _stored(one, "WEBP", quality=85),
    "JPEG 4:4:4": lambda one: _stored(one, "JPEG", quality=95, subsampling=0),
    "JPEG progressive": lambda one: _stored(one, "JPEG", quality=75, progressive=True),
    "JPEG grey": lambda one: _stored(one.convert("L"), "JPEG", quality=90),
    "JPEG CMYK": lambda one: _stored(one.convert("CMYK"), "JPEG", quality=95),
    "JPEG turned by EXIF": _with_exif,
    "PNG grey": lambda one: _stored(one.convert("L"), "PNG"),
    "PNG palette": lambda one: _stored(one.quantize(32), "PNG"),
    "PNG transparent": lambda one: _stored(_with_alpha(one), "PNG"),
    "PNG 16 bits": lambda one: _stored(_with_16_bits(one), "PNG"),
    "WebP lossless": lambda one: _stored(one, "WEBP", lossless=True),
    "WebP transparent": lambda one: _stored(_with_alpha(one), "WEBP", lossless=True),
    "WebP animated": _animated,
    "GIF": lambda one: _stored(one.quantize(64), "GIF"),
}
"""Every way to store a picture, by the name that reports use."""
