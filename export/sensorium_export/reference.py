"""The answer as PyTorch gives it, from raw bytes, with nothing of the serving code in it.

What leads to arrays (`reference_input`), from arrays to labels (`reference_labels`) and to pictures
(`reference_drawing`) is written anew after the checkpoint's config; generation is a simple loop
that computes everything again for each word. How stages make a task is written here once more, so
that the ensembles' wiring is proven too. Being slow and obvious is what makes it a reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sensorium_export.probes import Probe
from sensorium_export.recipe import required
from sensorium_export.reference_input import track_log_mel
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

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns tokens into text."""
        return Tokenizer.from_file(str(self.source.tokenizer_path))

    def run(self, probe: Probe) -> ReferenceRun:
        """Answer every task for one probe."""
        walk = _Walk(self)
        walks = dict(TASK_WALKS)
        if {"label_postprocess", "answer_postprocess"} & set(self.recipe.stages):
            walks |= CLASSIFIER_WALKS
        if "ctc_postprocess" in self.recipe.stages:
            walks["speech_recognition"] = _ctc_transcript
        tasks = {task: walks[task](walk, **probe.given(task)) for task in self.recipe.tasks}
        return ReferenceRun(tuple(walk.runs.values()), tasks)


class _Walk:
    """One probe's way through the model: each stage runs once on the same inputs."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._recipe = reference.recipe
        self.runs: dict[tuple[object, ...], StageRun] = {}

    def image(self, image: bytes, audio: bytes = b"") -> Tensors:
        """See a picture; one that is empty beside a sound is missing."""
        size = required(self._recipe.image).image_size
        given = {"image": image} | ({"audio": audio} if audio else {})

        def seen() -> Tensors:
            present = {"image_present": np.array([[int(bool(image))]])}
            if not image:
                return {"pixel_values": np.zeros((1, 3, size, size), np.float32), **present}
            return {**self._reference.source.image_values(image), **present}

        return self.encoded("image_encoder", self._ran("image_preprocess", given, seen))

    def audio(self, **given: bytes) -> Tensors:
        """Hear a sound, or the sound track of a clip."""

        def heard() -> Tensors:
            if given.get("audio"):
                return self._reference.source.audio_values(given["audio"])
            recipe, levels = required(self._recipe.audio), None
            if given.get("video"):
                levels = track_log_mel(given["video"], recipe)
            if levels is not None:
                return {"log_mel": levels, "log_mel_mask": np.ones(levels.shape[:2], np.int64)}
            silence = np.zeros((1, 1, recipe.mels), np.float32)
            return {"log_mel": silence, "log_mel_mask": np.zeros((1, 1), np.int64)}

        return self.encoded("audio_encoder", self._ran("audio_preprocess", given, heard))

    def video(self, video: bytes, audio: bytes = b"") -> Tensors:
        """Watch a clip; one that is empty beside a sound is missing."""
        recipe, size = required(self._recipe.video), required(self._recipe.image).image_size
        given = {"video": video} | ({"audio": audio} if audio else {})

        def watched() -> Tensors:
            frames, seconds = np.zeros((1, recipe.frames, 3, size, size), np.float32), 0.0
            if video:
                seen = self._reference.source.clip(video)
                frames, seconds = seen.frames, seen.duration_s
            return {"frames": frames, "duration_s": np.array([[seconds]], np.float32)}

        return self.encoded("video_encoder", self._ran("video_preprocess", given, watched))

    def text(self, text: bytes) -> Tensors:
        """Read a text."""

        def read() -> Tensors:
            recipe = required(self._recipe.text)
            ids = self._reference.source.token_ids(text.decode())
            padding = max((recipe.pad_to or 0) - len(ids), 0)
            return {
                "input_ids": np.array([ids + [recipe.pad_id] * padding], np.int64),
                "attention_mask": np.array([[1] * len(ids) + [0] * padding], np.int64),
            }

        return self.encoded("text_encoder", self._ran("text_preprocess", {"text": text}, read))

    def answer(self, question: bytes, tokens: NDArray[Any], mask: NDArray[Any]) -> Tensors:
        """Answer a question about the media whose tokens these are."""
        media = {"media_tokens": tokens, "media_mask": mask}
        read = self.text(question)
        fused = self.encoded("fusion", {**read, **media})
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

    def classes(self, known: Tensors) -> Tensors:
        """Name the classes of logits, best first."""
        logits = known["class_logits"]

        def named() -> Tensors:
            scores = torch.from_numpy(logits[0]).double()
            kind = self._recipe.activation
            scores = scores.sigmoid() if kind == "sigmoid" else scores.softmax(dim=0)
            return _tags(ranked(scores.tolist(), self._recipe.class_labels))

        return self._ran("label_postprocess", {"class_logits": logits}, named)

    def best_class(self, fused: Tensors) -> Tensors:
        """Name the likeliest answer."""
        logits = fused["class_logits"]

        def named() -> Tensors:
            scores = torch.from_numpy(logits[0]).double().softmax(dim=0)
            answer = self._recipe.class_labels[int(scores.argmax())]
            return {
                "answer": np.array([[answer.encode()]], object),
                "score": np.array([[float(scores.max())]], np.float32),
            }

        return self._ran("answer_postprocess", {"class_logits": logits}, named)

    def transcript(self, heard: Tensors) -> Tensors:
        """Write down the likeliest token of each frame."""
        given = {name: heard[name] for name in ("ctc_logits", "ctc_mask")}

        def written() -> Tensors:
            chosen = torch.from_numpy(given["ctc_logits"][0]).double().log_softmax(-1).max(-1)
            text = self._reference.source.transcribed(chosen.indices.tolist())
            return {
                "transcript": np.array([[text.encode()]], object),
                "score": np.array([[float(chosen.values.sum().exp())]], np.float32),
            }

        return self._ran("ctc_postprocess", given, written)

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
            picture = self._reference.source.drawn(tokens, seed, steps, guidance_scale)
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

    def encoded(self, stage: str, known: Tensors) -> Tensors:
        """Run a network; return its outputs and what went in."""
        signature = self._recipe.signature(stage)
        inputs = {spec.name: known[spec.name] for spec in signature.inputs}
        module = self._reference.model.get_submodule(stage)
        made = self._ran(stage, inputs, lambda: run_module(module, "forward", signature, inputs))
        return {**known, **made}

    def _generated(self, memory: NDArray[Any], mask: NDArray[Any]) -> Tensors:
        def generate() -> Tensors:
            source = self._reference.source
            tokens, score = source.generated(torch.from_numpy(memory), torch.from_numpy(mask))
            text: str = self._reference.tokenizer.decode(tokens)
            return {
                "text": np.array([[text.encode()]], object),
                "score": np.array([[score]], np.float32),
            }

        return self._ran("text_decoder", {"memory": memory, "memory_mask": mask}, generate)


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


def _generated_text(walk: _Walk, known: Tensors) -> Tensors:
    said = walk.caption(known["text_tokens"], known["attention_mask"])
    return {"generated_text": said["caption"], "score": said["score"]}


def _transcript(walk: _Walk, known: Tensors) -> Tensors:
    said = _caption(walk, known, "audio")
    return {"transcript": said["caption"], "score": said["score"]}


def _ctc_transcript(walk: _Walk, audio: bytes) -> Tensors:
    return walk.transcript(walk.audio(audio=audio))


def _classified_answer(walk: _Walk, image: bytes, question: bytes) -> Tensors:
    read, seen = walk.text(question), walk.image(image)
    media = {"media_tokens": seen["image_tokens"], "media_mask": seen["image_mask"]}
    return walk.best_class(walk.encoded("fusion", {**read, **media}))


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
    "text_generation": lambda walk, text: _generated_text(walk, walk.text(text)),
    "speech_recognition": lambda walk, audio: _transcript(walk, walk.audio(audio=audio)),
}
"""How each task is made of stages; the arguments are the task's inputs."""

CLASSIFIER_WALKS: Mapping[str, Callable[..., Tensors]] = {
    "image_classification": lambda walk, image: walk.classes(walk.image(image)),
    "audio_tagging": lambda walk, audio: walk.classes(walk.audio(audio=audio)),
    "action_recognition": lambda walk, video: walk.classes(walk.video(video)),
    "visual_question_answering": _classified_answer,
}
"""How a classifier does its tasks."""
