"""How families of models do their tasks, where it is otherwise than in `ENSEMBLES`.

A family's recipe takes its chains from here and from `sensorium_export.ensembles.ENSEMBLES`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from sensorium_export.ensembles import (
    ENSEMBLES,
    Chain,
    Step,
    decoder,
    encoder,
    preprocess,
    same,
)

_LABELS = Step("label_postprocess", same("class_logits"), same("labels", "scores"))


def _heard(*heard: str) -> Step:
    """Turn a sound into what a network without a mask hears."""
    return Step("audio_preprocess", same("audio"), same(*heard))


def _listening(*made: str) -> tuple[Step, Step]:
    """Let a network hear the samples themselves."""
    samples = ("waveform", "waveform_mask")
    return _heard(*samples), Step("audio_encoder", same(*samples), same(*made))


def _hearing(*heard: str, **renamed: str) -> Step:
    return Step("audio_encoder", same(*heard), renamed)


FAMILY_ENSEMBLES: Mapping[str, Chain] = MappingProxyType(
    {
        "image_classification": (
            preprocess("image", "image"),
            encoder("image", "class_logits"),
            _LABELS,
        ),
        "action_recognition": (
            preprocess("video", "video"),
            encoder("video", "class_logits"),
            _LABELS,
        ),
        "audio_tagging": (
            _heard("log_mel"),
            _hearing("log_mel", class_logits="class_logits"),
            _LABELS,
        ),
        "audio_embedding": (
            _heard("log_mel"),
            _hearing("log_mel", audio_embedding="embedding"),
        ),
        "text_generation": (
            preprocess("text", "text"),
            encoder("text", "text_tokens"),
            decoder("text_tokens", "attention_mask", "generated_text"),
        ),
        "text_to_image": (
            preprocess("text", "text"),
            Step("text_encoder", same("input_ids"), same("text_tokens")),
            ENSEMBLES["text_to_image"][-1],
        ),
        "speech_recognition": (
            _heard("log_mel"),
            _hearing("log_mel", audio_tokens="audio_tokens", audio_mask="audio_mask"),
            decoder("audio_tokens", "audio_mask", "transcript"),
        ),
        "visual_question_answering": (
            preprocess("text", text="question"),
            encoder("text", "text_tokens", "text_embedding"),
            preprocess("image", "image", also=("image_extent",), after="text_embedding"),
            Step(
                "image_encoder",
                same("pixel_values", "image_extent"),
                same("image_tokens", "image_mask"),
            ),
            Step(
                "fusion",
                same("text_tokens", "attention_mask")
                | {"media_tokens": "image_tokens", "media_mask": "image_mask"},
                same("class_logits"),
            ),
            Step("answer_postprocess", same("class_logits"), same("answer", "score")),
        ),
    }
)
"""Classifiers, networks that hear a window of fixed length, text to text, latent diffusion."""

WAVEFORM_ENSEMBLES: Mapping[str, Chain] = MappingProxyType(
    {
        "audio_tagging": (*_listening("class_logits"), _LABELS),
        "speech_recognition": (
            *_listening("ctc_logits", "ctc_mask"),
            Step("ctc_postprocess", same("ctc_logits", "ctc_mask"), same("transcript", "score")),
        ),
    }
)
"""Networks that hear the samples of a sound."""


def native(*tasks: str) -> dict[str, Chain]:
    """Return tasks that a family does as Sensorium's own checkpoints do."""
    return {task: ENSEMBLES[task] for task in tasks}


def listening(*tasks: str) -> dict[str, Chain]:
    """Return tasks that it does with a network that hears samples."""
    return {task: WAVEFORM_ENSEMBLES[task] for task in tasks}


def other(*tasks: str) -> dict[str, Chain]:
    """Return tasks that it does otherwise."""
    return {task: FAMILY_ENSEMBLES[task] for task in tasks}
