"""What users have without a server: transformers' own processor and model, in eager PyTorch."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from harness import window
from harness.inputs import Inputs
from harness.job import LibraryJob, serve

Call = Callable[[int], object]


def _embedding(job: LibraryJob, inputs: Inputs) -> Call:
    """Return what embeds a picture by CLIP."""
    library: Any = transformers
    model = library.CLIPModel.from_pretrained(job.checkpoint).eval()
    see = library.AutoImageProcessor.from_pretrained(job.checkpoint, backend="pil")

    def call(number: int) -> object:
        picture = _picture(inputs, number)
        return model.get_image_features(**see(picture, return_tensors="pt"))

    return call


def _answer(job: LibraryJob, inputs: Inputs) -> Call:
    """Return what answers a question by BLIP."""
    library: Any = transformers
    model = library.BlipForQuestionAnswering.from_pretrained(job.checkpoint).eval()
    see = library.AutoImageProcessor.from_pretrained(job.checkpoint, backend="pil")
    read = library.AutoTokenizer.from_pretrained(job.checkpoint)

    def call(number: int) -> object:
        question = _bytes(inputs, "question", number).decode()
        ids = read(question, return_tensors="pt")
        return model.generate(
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
            **see(_picture(inputs, number), return_tensors="pt"),
        )

    return call


CALLS: dict[str, Callable[[LibraryJob, Inputs], Call]] = {
    "image_embedding": _embedding,
    "visual_question_answering": _answer,
}


def _picture(inputs: Inputs, number: int) -> Image.Image:
    return Image.open(io.BytesIO(_bytes(inputs, "image", number))).convert("RGB")


def _bytes(inputs: Inputs, name: str, number: int) -> bytes:
    value = inputs.columns[name][number]
    if not isinstance(value, bytes):
        raise TypeError(f"{name} is {type(value).__name__}, not bytes")
    return value


def measure(values: dict[str, Any], ready: Callable[[], None]) -> dict[str, Any]:
    """Call for a while; return rate and latencies."""
    job = LibraryJob(**values)
    torch.set_num_threads(job.threads)
    inputs = Inputs.load(job.task, Path(job.inputs))
    call, count = CALLS[job.task](job, inputs), len(inputs.columns["image"])
    begins: list[float] = []
    ends: list[float] = []
    with torch.no_grad():
        call(0)
        ready()
        opened = time.perf_counter()
        while time.perf_counter() - opened < job.seconds or len(ends) < job.least_calls:
            begins.append(time.perf_counter())
            call(len(begins) % count)
            ends.append(time.perf_counter())
    limits = (opened, ends[-1])
    return {
        "rate": window.rate(begins, ends, limits),
        "latencies_ms": window.latencies_ms(begins, ends, limits),
    }


if __name__ == "__main__":
    serve(measure)
