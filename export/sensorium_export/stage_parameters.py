"""The parameters in each stage's `config.pbtxt`, from the checkpoint's recipe."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from sensorium.contract import (
    CTC_MASK,
    INPUT_IDS,
    MEDIA,
    MEL_FRAMES,
    SAMPLES,
    SEQUENCE,
    SPEECH_FRAMES,
)
from sensorium_export.recipe import Recipe, required

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Parameters = dict[str, str]

_LONGEST_MEL = 2048
"""Frames, 65 s: more than the server lets in by default."""

_SHORTEST_MEL, _SHORTEST_WAVEFORM = 2**4, 2**12
_LONGEST_WAVEFORM = 2**20
"""Samples, 65 s at 16 kHz."""

_ONE_THREAD = {"intra_op_thread_count": "1", "session.intra_op.allow_spinning": "0"}


def parameters_of(stage: str, recipe: Recipe) -> Parameters:
    """Return a stage's parameters; `STAGES` of the contract names the stages."""
    if stage in _PARAMETERS:
        return _PARAMETERS[stage](recipe)
    return _graph_parameters(stage, recipe)


def _written(section: "DataclassInstance | None") -> Parameters:
    """Write a section of the recipe; its fields are named as the stage's parameters are."""
    if section is None:
        return {}
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    return {name: _word(value) for name, value in values.items() if value is not None}


def _changed(section: "DataclassInstance") -> Parameters:
    """Write those fields of a section that differ from their defaults."""
    written = _written(section)
    return {
        field.name: written[field.name]
        for field in dataclasses.fields(section)
        if getattr(section, field.name) != field.default
    }


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _video_preprocess(recipe: Recipe) -> Parameters:
    """Return which frames are taken, and how a picture is treated."""
    image = _written(recipe.image)
    if image["crop"] == "squash":
        del image["crop"]
    return image | _written(recipe.video)


def _text_preprocess(recipe: Recipe) -> Parameters:
    text = required(recipe.text)
    padded = {} if text.pad_to is None else {"pad_to": str(text.pad_to)}
    return {"max_tokens": str(text.max_tokens), "pad_id": str(text.pad_id)} | padded


def _event_postprocess(recipe: Recipe) -> Parameters:
    labels = {
        "audio_labels": ",".join(recipe.audio_labels),
        "video_labels": ",".join(recipe.video_labels),
    }
    hop_s = {} if recipe.audio is None else {"hop_s": str(recipe.audio.hop_s)}
    return labels | hop_s | _written(recipe.events)


def _ctc_postprocess(recipe: Recipe) -> Parameters:
    ctc = required(recipe.ctc)
    return _written(ctc) | {"tokens": json.dumps(ctc.tokens)}


def _classes(recipe: Recipe) -> Parameters:
    return {"labels": json.dumps(recipe.class_labels), "activation": recipe.activation}


def _text_decoder(recipe: Recipe) -> Parameters:
    """Return where generation starts and ends, and how it differs from greedy decoding."""
    text = required(recipe.text)
    chosen = _changed(text.generation)
    ends = {"eos_id": chosen.pop("eos_ids", str(text.eos_id))}
    starts = {} if "prompt_ids" in chosen else {"bos_id": str(text.bos_id)}
    limits = {"max_new_tokens": str(text.max_new_tokens), "slots": str(text.generation.slots)}
    return _graph_parameters("text_decoder", recipe) | starts | ends | limits | chosen


_PARAMETERS: Mapping[str, Callable[[Recipe], Parameters]] = MappingProxyType(
    {
        "image_preprocess": lambda recipe: _written(recipe.image),
        "audio_preprocess": lambda recipe: _written(recipe.audio or recipe.waveform),
        "video_preprocess": _video_preprocess,
        "text_preprocess": _text_preprocess,
        "media_join": lambda _recipe: {},
        "text_decoder": _text_decoder,
        "ctc_postprocess": _ctc_postprocess,
        "image_decoder": lambda recipe: (
            _graph_parameters("image_decoder", recipe) | _written(recipe.diffusion)
        ),
        "tag_postprocess": lambda recipe: {"labels": ",".join(recipe.audio_labels)},
        "action_postprocess": lambda recipe: {"labels": ",".join(recipe.video_labels)},
        "event_postprocess": _event_postprocess,
        "label_postprocess": _classes,
        "answer_postprocess": lambda recipe: {"labels": json.dumps(recipe.class_labels)},
    }
)


def _graph_parameters(stage: str, recipe: Recipe) -> Parameters:
    """Return threads, precision, and lengths to which inputs may be padded to share a run."""
    axes = {axis for spec in recipe.signature(stage).inputs for axis in spec.shape}
    axes -= recipe.sizes.keys()
    lengths: Mapping[str, Callable[[], list[int]]] = {
        SEQUENCE: lambda: _doublings(required(recipe.text).max_tokens),
        MEL_FRAMES: lambda: _with_halves(_SHORTEST_MEL, _LONGEST_MEL),
        SAMPLES: lambda: _with_halves(_SHORTEST_WAVEFORM, _LONGEST_WAVEFORM),
        MEDIA: lambda: _media_lengths(recipe),
    }
    buckets = {
        f"buckets.{axis}": ",".join(map(str, values()))
        for axis, values in lengths.items()
        if axis in axes
    }
    if SPEECH_FRAMES in {axis for spec in recipe.signature(stage).outputs for axis in spec.shape}:
        buckets[f"mask.{SPEECH_FRAMES}"] = CTC_MASK.name
    if stage in recipe.precision:
        buckets["precision"] = recipe.precision[stage]
    if stage != "text_encoder":
        return _ONE_THREAD | buckets
    padding = {f"pad_value.{INPUT_IDS.name}": str(required(recipe.text).pad_id)}
    return _ONE_THREAD | buckets | padding


def _doublings(longest: int) -> list[int]:
    """Return powers of two from eight on, and the longest."""
    return [*(2**power for power in range(3, 20) if 2**power < longest), longest]


def _with_halves(shortest: int, longest: int) -> list[int]:
    """Return shortest, its doublings, and what lies halfway between: a third is padding at most."""
    powers = [shortest << power for power in range(20) if shortest << power < longest]
    return [*(length for power in powers for length in (power, power * 3 // 2)), longest]


def _media_lengths(recipe: Recipe) -> list[int]:
    """Return how many tokens the media of a question can have."""
    kinds = ("image", "audio", "video")
    image, audio, video = (recipe.sizes.get(f"{kind}_tokens", 0) for kind in kinds)
    lengths = {
        "visual_question_answering": image,
        "audio_question_answering": audio,
        "audio_visual_question_answering": image + audio,
        "video_question_answering": video + audio,
    }
    return sorted({length for task, length in lengths.items() if task in recipe.tasks})
