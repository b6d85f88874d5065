"""The answer as PyTorch gives it, from raw bytes, with nothing of the serving code in it.

Preprocessing is plain Pillow and NumPy after the checkpoint's config; generation is a simple loop
that computes everything anew for each word. Being slow and obvious is what makes it a reference.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from torch import Tensor

from sensorium.contract import STAGES
from sensorium_export.checkpoint import Checkpoint
from sensorium_export.recipe import ImageRecipe, Recipe
from sensorium_export.runners import run_module

Tensors = Mapping[str, NDArray[Any]]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class StageRun:
    """What one stage was given and what it gave, with a batch of one."""

    stage: str
    inputs: Tensors
    outputs: Tensors


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """All stages on one picture and one text, and each task's outputs."""

    stages: tuple[StageRun, ...]
    tasks: Mapping[str, Tensors]


class Reference:
    """A checkpoint that answers in PyTorch."""

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        self._model = checkpoint.model
        self._recipe = recipe
        self._tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def run(self, image: bytes, text: str) -> ReferenceRun:
        """Answer every task for one picture and one text."""
        seen = self._preprocessed("image_preprocess", "image", image)
        read = self._preprocessed("text_preprocess", "text", text.encode())
        pictured = self._encoded("image_encoder", seen.outputs)
        worded = self._encoded("text_encoder", read.outputs)
        fused = self._encoded("fusion", {**worded.outputs, **read.outputs, **pictured.outputs})
        answered = self._generated(fused.outputs["fused_tokens"], read.outputs["attention_mask"])
        captioned = self._generated(
            pictured.outputs["image_tokens"], pictured.outputs["image_mask"]
        )
        return ReferenceRun(
            stages=(seen, read, pictured, worded, fused, answered, captioned),
            tasks={
                "visual_question_answering": {
                    "answer": answered.outputs["text"],
                    "score": answered.outputs["score"],
                },
                "image_captioning": {
                    "caption": captioned.outputs["text"],
                    "score": captioned.outputs["score"],
                },
                "text_embedding": {"embedding": worded.outputs["text_embedding"]},
                "image_embedding": {"embedding": pictured.outputs["image_embedding"]},
            },
        )

    def _preprocessed(self, stage: str, name: str, data: bytes) -> StageRun:
        inputs = {name: np.array([[data]], dtype=object)}
        if stage == "image_preprocess":
            return StageRun(stage, inputs, {"pixel_values": pixel_values(data, self._recipe.image)})
        ids = np.array([self._tokenizer.encode(data.decode()).ids], np.int64)
        return StageRun(stage, inputs, {"input_ids": ids, "attention_mask": np.ones_like(ids)})

    def _encoded(self, stage: str, known: Tensors) -> StageRun:
        signature = STAGES[stage]
        inputs = {spec.name: known[spec.name] for spec in signature.inputs}
        module = self._model.get_submodule(stage)
        return StageRun(stage, inputs, run_module(module, "forward", signature, inputs))

    def _generated(self, memory: NDArray[Any], mask: NDArray[Any]) -> StageRun:
        text, score = self._greedy(torch.from_numpy(memory), torch.from_numpy(mask))
        return StageRun(
            "text_decoder",
            {"memory": memory, "memory_mask": mask},
            {
                "text": np.array([[text.encode()]], dtype=object),
                "score": np.array([[score]], np.float32),
            },
        )

    def _greedy(self, memory: Tensor, mask: Tensor) -> tuple[str, float]:
        """Take the likeliest word again and again; return the text and its probability."""
        text = self._recipe.text
        tokens, log_probability = [text.bos_id], 0.0
        for _ in range(text.max_new_tokens):
            with torch.no_grad():
                logits = self._model.text_decoder(torch.tensor([tokens]), memory, mask)[0, -1]
            log_probabilities = torch.log_softmax(logits.double(), dim=-1)
            token = int(log_probabilities.argmax())
            log_probability += float(log_probabilities[token])
            if token == text.eos_id:
                break
            tokens.append(token)
        return self._tokenizer.decode(tokens[1:]), float(np.exp(log_probability))


def pixel_values(data: bytes, recipe: ImageRecipe) -> NDArray[np.float32]:
    """Return a picture's normalised pixels, [1, 3, image_size, image_size]."""
    picture = _cropped(_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))), recipe)
    values = np.asarray(picture, np.float64) / 255
    normalised = (values - np.array(recipe.mean)) / np.array(recipe.std)
    planes: NDArray[np.float32] = normalised.transpose(2, 0, 1)[None].astype(np.float32)
    return planes


def _rgb(picture: Image.Image) -> Image.Image:
    """Return 8-bit RGB: 16 bits by their high byte, transparency over white."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) // 256).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        return ground.convert("RGB")
    return picture.convert("RGB")


def _cropped(picture: Image.Image, recipe: ImageRecipe) -> Image.Image:
    size, resample = recipe.image_size, FILTERS[recipe.resample]
    if recipe.crop == "squash":
        return picture.resize((size, size), resample)
    short = min(picture.size)
    width, height = (size * edge // short for edge in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), resample)
    return resized.crop((left, top, left + size, top + size))
