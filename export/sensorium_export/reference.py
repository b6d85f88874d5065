"""The answer as PyTorch gives it, from raw bytes, with nothing of the serving code in it.

What leads to arrays (`reference_input`), from arrays to labels (`reference_labels`) and to pictures
(`reference_drawing`) is written anew after the checkpoint's config; generation is a simple loop
that computes everything again for each word. How stages make a task is written here once more, so
that the ensembles' wiring is proven too. Being slow and obvious is what makes it a reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from sensorium_export.probes import Probe
from sensorium_export.reference_drawing import drawn
from sensorium_export.reference_input import clip, log_mel, track_log_mel
from sensorium_export.reference_labels import (
    action_scores,
    merged,
    ranked,
    sound_events,
    tag_scores,
    track_events,
)
from sensorium_export.runners import run_module
from sensorium_export.source import Source

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class StageRun:
    """What one stage was given and what it gave, with a batch of one."""

    stage: str
    inputs: Tensors
    outputs: Tensors


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """All stages on one probe, and each task's outputs."""

    stages: tuple[StageRun, ...]
    tasks: Mapping[str, Tensors]


class Reference:
    """A checkpoint that answers in PyTorch."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.recipe = source.recipe
        self.model: Any = source.model
        self.tokenizer = Tokenizer.from_file(str(source.tokenizer_path))

    def run(self, probe: Probe) -> ReferenceRun:
        """Answer every task for one probe."""
        walk = _Walk(self)
        tasks = {task: TASK_WALKS[task](walk, **probe.given(task)) for task in self.recipe.tasks}
        return ReferenceRun(tuple(walk.runs.values()), tasks)


class _Walk:
    """One probe's way through the model: each stage runs once on the same inputs."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._recipe = reference.recipe
        self.runs: dict[tuple[object, ...], StageRun] = {}

    def image(self, image: bytes, audio: bytes = b"") -> Tensors:
        """See a picture; one that is empty beside a sound is missing."""
        size = self._recipe.image.image_size
        given = {"image": image} | ({"audio": audio} if audio else {})

        def seen() -> Tensors:
            pixels = np.zeros((1, 3, size, size), np.float32)
            pixels = self._reference.source.pixel_values(image) if image else pixels
            return {"pixel_values": pixels, "image_present": np.array([[int(bool(image))]])}

        return self._encoded("image_encoder", self._ran("image_preprocess", given, seen))

    def audio(self, **given: bytes) -> Tensors:
        """Hear a sound, or the sound track of a clip."""
        recipe = self._recipe.audio
        assert recipe is not None  # noqa: S101 - only asked of a checkpoint that hears

        def heard() -> Tensors:
            levels = None
            if given.get("audio"):
                levels = log_mel(given["audio"], recipe)
            elif given.get("video"):
                levels = track_log_mel(given["video"], recipe)
            if levels is not None:
                return {"log_mel": levels, "log_mel_mask": np.ones(levels.shape[:2], np.int64)}
            silence = np.zeros((1, 1, recipe.mels), np.float32)
            return {"log_mel": silence, "log_mel_mask": np.zeros((1, 1), np.int64)}

        return self._encoded("audio_encoder", self._ran("audio_preprocess", given, heard))

    def video(self, video: bytes, audio: bytes = b"") -> Tensors:
        """Watch a clip; one that is empty beside a sound is missing."""
        recipe = self._recipe.video
        assert recipe is not None  # noqa: S101 - only asked of a checkpoint that watches
        size = self._recipe.image.image_size
        given = {"video": video} | ({"audio": audio} if audio else {})

        def watched() -> Tensors:
            frames, seconds = np.zeros((1, recipe.frames, 3, size, size), np.float32), 0.0
            if video:
                seen = clip(video, self._recipe.image, recipe)
                frames, seconds = seen.frames, seen.duration_s
            return {"frames": frames, "duration_s": np.array([[seconds]], np.float32)}

        return self._encoded("video_encoder", self._ran("video_preprocess", given, watched))

    def text(self, text: bytes) -> Tensors:
        """Read a text."""

        def read() -> Tensors:
            ids = np.array([self._reference.source.token_ids(text.decode())], np.int64)
            return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

        return self._encoded("text_encoder", self._ran("text_preprocess", {"text": text}, read))

    def answer(self, question: bytes, tokens: NDArray[Any], mask: NDArray[Any]) -> Tensors:
        """Answer a question about the media whose tokens these are."""
        media = {"media_tokens": tokens, "media_mask": mask}
        read = self.text(question)
        fused = self._encoded("fusion", {**read, **media})
        said = self._generated(fused["fused_tokens"], read["attention_mask"])
        return {"answer": said["text"], "score": said["score"]}

    def caption(self, tokens: NDArray[Any], mask: NDArray[Any]) -> Tensors:
        """Put tokens into words."""
        said = self._generated(tokens, mask)
        return {"caption": said["text"], "score": said["score"]}

    def joined(self, heard: Tensors, seen: Tensors, kind: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Join the tokens of a picture or clip and of a sound; masked tokens are zeros."""
        names = ["audio_tokens", "audio_mask", f"{kind}_tokens", f"{kind}_mask"]
        given = {name: {**heard, **seen}[name] for name in names}
        present = np.array([[1]])
        if kind == "image":
            present = given["image_present"] = seen["image_present"]

        def join() -> Tensors:
            mask = np.concatenate([seen[f"{kind}_mask"] * present, heard["audio_mask"]], axis=1)
            tokens = np.concatenate([seen[f"{kind}_tokens"], heard["audio_tokens"]], axis=1)
            return {"media_tokens": tokens * (mask[..., None] > 0), "media_mask": mask}

        media = self._ran("media_join", given, join)
        return media["media_tokens"].astype(np.float32), media["media_mask"]

    def tags(self, heard: Tensors) -> Tensors:
        """Say what is heard."""
        given = {name: heard[name] for name in ("sound_activity", "log_mel_mask")}
        scores = tag_scores(given["sound_activity"][0], given["log_mel_mask"][0])
        labels = self._recipe.audio_labels
        return self._ran("tag_postprocess", given, lambda: _tags(ranked(scores, labels)))

    def actions(self, watched: Tensors) -> Tensors:
        """Say what is done."""
        given = {name: watched[name] for name in ("track_actions", "track_spans")}
        scores = action_scores(given["track_actions"][0], given["track_spans"][0])
        labels = self._recipe.video_labels
        return self._ran("action_postprocess", given, lambda: _tags(ranked(scores, labels)))

    def events(self, heard: Tensors, watched: Tensors) -> Tensors:
        """Say what happens when."""
        names = ("sound_activity", "log_mel_mask", "track_actions", "track_spans", "duration_s")
        given = {name: {**heard, **watched}[name] for name in names}

        def happened() -> Tensors:
            activity, mask, actions, spans, seconds = (given[name][0] for name in names)
            found = sound_events(activity, mask, self._recipe)
            if seconds[0] > 0:
                found += track_events(actions, spans, float(seconds[0]), self._recipe)
            events = merged(found)
            return _tags([(event.label, event.score) for event in events]) | {
                "start_s": np.array([[event.start_s for event in events]], np.float32),
                "end_s": np.array([[event.end_s for event in events]], np.float32),
            }

        return self._ran("event_postprocess", given, happened)

    def drawing(self, text: bytes, seed: int, steps: int, guidance_scale: float) -> Tensors:
        """Draw a picture to a text."""
        read = self.text(text)
        given = {name: read[name] for name in ("text_tokens", "attention_mask")}
        wish = {"seed": np.array([[seed]]), "steps": np.array([[steps]])}
        wish["guidance_scale"] = np.array([[guidance_scale]], np.float32)

        def draw() -> Tensors:
            tokens = torch.from_numpy(read["text_tokens"])
            side, decoder = self._recipe.image.image_size, self._reference.model.image_decoder
            picture = drawn(decoder, tokens, side, seed, steps, guidance_scale)
            return {"image": np.array([[picture]], object)}

        return self._ran("image_decoder", given | wish, draw)

    def _ran(
        self, stage: str, given: Mapping[str, Any], run: Callable[[], Tensors]
    ) -> dict[str, NDArray[Any]]:
        """Run a stage, or remember what it gave for the same inputs; return all that is known."""
        inputs = {
            name: np.array([[value]], object) if isinstance(value, bytes) else value
            for name, value in given.items()
        }
        key = (stage, *((name, _identity(array)) for name, array in inputs.items()))
        if key not in self.runs:
            self.runs[key] = StageRun(stage, inputs, run())
        return dict(self.runs[key].outputs)

    def _encoded(self, stage: str, known: Tensors) -> Tensors:
        """Run a network; return its outputs and what went in."""
        signature = self._recipe.signature(stage)
        inputs = {spec.name: known[spec.name] for spec in signature.inputs}
        module = self._reference.model.get_submodule(stage)
        made = self._ran(stage, inputs, lambda: run_module(module, "forward", signature, inputs))
        return {**known, **made}

    def _generated(self, memory: NDArray[Any], mask: NDArray[Any]) -> Tensors:
        def generate() -> Tensors:
            text, score = self._greedy(torch.from_numpy(memory), torch.from_numpy(mask))
            return {
                "text": np.array([[text.encode()]], object),
                "score": np.array([[score]], np.float32),
            }

        return self._ran("text_decoder", {"memory": memory, "memory_mask": mask}, generate)

    def _greedy(self, memory: Tensor, mask: Tensor) -> tuple[str, float]:
        """Take the likeliest word again and again; return the text and its probability."""
        text = self._recipe.text
        tokens, log_probability = [text.bos_id], 0.0
        for _ in range(text.max_new_tokens):
            with torch.no_grad():
                decoder = self._reference.model.text_decoder
                logits = decoder(torch.tensor([tokens]), memory, mask)[0, -1]
            log_probabilities = torch.log_softmax(logits.double(), dim=-1)
            token = int(log_probabilities.argmax())
            log_probability += float(log_probabilities[token])
            if token == text.eos_id:
                break
            tokens.append(token)
        return self._reference.tokenizer.decode(tokens[1:]), float(np.exp(log_probability))


def _identity(array: NDArray[Any]) -> object:
    return array.item() if array.dtype == object else (array.shape, array.tobytes())


def _tags(pairs: list[tuple[str, float]]) -> dict[str, NDArray[Any]]:
    labels = [label.encode() for label, _ in pairs]
    return {
        "labels": np.array([labels], object).reshape(1, len(labels)),
        "scores": np.array([[score for _, score in pairs]], np.float32),
    }


def _embedding(known: Tensors, kind: str) -> Tensors:
    return {"embedding": known[f"{kind}_embedding"]}


def _answer(walk: _Walk, question: bytes, known: Tensors, kind: str) -> Tensors:
    return walk.answer(question, known[f"{kind}_tokens"], known[f"{kind}_mask"])


def _caption(walk: _Walk, known: Tensors, kind: str) -> Tensors:
    return walk.caption(known[f"{kind}_tokens"], known[f"{kind}_mask"])


def _audio_visual(walk: _Walk, image: bytes, audio: bytes, question: bytes) -> Tensors:
    seen, heard = walk.image(image, audio), walk.audio(audio=audio, image=image)
    return walk.answer(question, *walk.joined(heard, seen, "image"))


def _video_question(walk: _Walk, video: bytes, question: bytes) -> Tensors:
    seen, heard = walk.video(video), walk.audio(video=video)
    return walk.answer(question, *walk.joined(heard, seen, "video"))


TASK_WALKS: Mapping[str, Callable[..., Tensors]] = {
    "visual_question_answering": lambda walk, image, question: _answer(
        walk, question, walk.image(image), "image"
    ),
    "image_captioning": lambda walk, image: _caption(walk, walk.image(image), "image"),
    "audio_question_answering": lambda walk, audio, question: _answer(
        walk, question, walk.audio(audio=audio), "audio"
    ),
    "audio_tagging": lambda walk, audio: walk.tags(walk.audio(audio=audio)),
    "audio_visual_question_answering": _audio_visual,
    "video_question_answering": _video_question,
    "video_captioning": lambda walk, video: _caption(walk, walk.video(video), "video"),
    "action_recognition": lambda walk, video: walk.actions(walk.video(video)),
    "event_detection": lambda walk, video, audio: walk.events(
        walk.audio(audio=audio, video=video), walk.video(video, audio)
    ),
    "text_embedding": lambda walk, text: _embedding(walk.text(text), "text"),
    "image_embedding": lambda walk, image: _embedding(walk.image(image), "image"),
    "audio_embedding": lambda walk, audio: _embedding(walk.audio(audio=audio), "audio"),
    "video_embedding": lambda walk, video: _embedding(walk.video(video), "video"),
    "text_to_image": lambda walk, **given: walk.drawing(**given),
}
"""How each task is made of stages; the arguments are the task's inputs."""
