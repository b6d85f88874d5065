"""How each task is made of stages, and which tasks a checkpoint's parts allow.

Ensembles are chains, in which no two steps ever run at once: where two of them do and one fails,
Triton 2.51 crashes or deadlocks; see decision 2. A step that would not wait for the one before it
by what it needs takes its embedding as `after`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sensorium.contract import STAGES, TASKS, Signature

OPTIONAL_PARTS = ("audio_encoder", "video_encoder", "image_decoder")
"""The networks that a checkpoint may lack; all others it has."""


_SEEN: Mapping[str, tuple[str, ...]] = {
    "text": ("input_ids", "attention_mask"),
    "image": ("pixel_values",),
    "audio": ("log_mel", "log_mel_mask"),
    "video": ("frames",),
}
"""What each encoder sees."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stage inside an ensemble; inputs and outputs map the stage's tensor to the ensemble's."""

    stage: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def _same(*names: str) -> dict[str, str]:
    """Map tensors that the ensemble calls as the stage does."""
    return {name: name for name in names}


def _preprocess(kind: str, *given: str, also: tuple[str, ...] = (), **mapped: str) -> Step:
    """Turn bytes into what the encoder sees, and into `also`."""
    return Step(f"{kind}_preprocess", _same(*given) | mapped, _same(*_SEEN[kind], *also))


def _encoder(kind: str, *made: str, **renamed: str) -> Step:
    return Step(f"{kind}_encoder", _same(*_SEEN[kind]), _same(*made) | renamed)


def _media_join(other: str, *present: str) -> Step:
    names = ("audio_tokens", "audio_mask", f"{other}_tokens", f"{other}_mask", *present)
    return Step("media_join", _same(*names), _same("media_tokens", "media_mask"))


def _answer(media: str) -> tuple[Step, Step]:
    """Fuse a question with the tokens of its media, and put the answer into words."""
    fused = _same("text_tokens", "attention_mask")
    fused |= {"media_tokens": f"{media}_tokens", "media_mask": f"{media}_mask"}
    return (
        Step("fusion", fused, _same("fused_tokens")),
        _decoder("fused_tokens", "attention_mask", "answer"),
    )


def _decoder(memory: str, mask: str, text: str) -> Step:
    inputs = {"memory": memory, "memory_mask": mask}
    return Step("text_decoder", inputs, {"text": text, "score": "score"})


_QUESTION = (
    _preprocess("text", text="question"),
    _encoder("text", "text_tokens", "text_embedding"),
)

ENSEMBLES: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {
        "visual_question_answering": (
            *_QUESTION,
            _preprocess("image", "image", after="text_embedding"),
            _encoder("image", "image_tokens", "image_mask"),
            *_answer("image"),
        ),
        "image_captioning": (
            _preprocess("image", "image"),
            _encoder("image", "image_tokens", "image_mask"),
            _decoder("image_tokens", "image_mask", "caption"),
        ),
        "audio_question_answering": (
            *_QUESTION,
            _preprocess("audio", "audio", after="text_embedding"),
            _encoder("audio", "audio_tokens", "audio_mask"),
            *_answer("audio"),
        ),
        "audio_tagging": (
            _preprocess("audio", "audio"),
            _encoder("audio", "sound_activity"),
            Step(
                "tag_postprocess",
                _same("sound_activity", "log_mel_mask"),
                _same("labels", "scores"),
            ),
        ),
        "audio_visual_question_answering": (
            *_QUESTION,
            _preprocess("image", "image", "audio", also=("image_present",), after="text_embedding"),
            _encoder("image", "image_tokens", "image_mask", "image_embedding"),
            _preprocess("audio", "audio", "image", after="image_embedding"),
            _encoder("audio", "audio_tokens", "audio_mask"),
            _media_join("image", "image_present"),
            *_answer("media"),
        ),
        "video_question_answering": (
            *_QUESTION,
            _preprocess("video", "video", after="text_embedding"),
            _encoder("video", "video_tokens", "video_mask", "video_embedding"),
            _preprocess("audio", "video", after="video_embedding"),
            _encoder("audio", "audio_tokens", "audio_mask"),
            _media_join("video"),
            *_answer("media"),
        ),
        "video_captioning": (
            _preprocess("video", "video"),
            _encoder("video", "video_tokens", "video_mask"),
            _decoder("video_tokens", "video_mask", "caption"),
        ),
        "action_recognition": (
            _preprocess("video", "video"),
            _encoder("video", "track_actions", "track_spans"),
            Step(
                "action_postprocess",
                _same("track_actions", "track_spans"),
                _same("labels", "scores"),
            ),
        ),
        "event_detection": (
            _preprocess("video", "video", "audio", also=("duration_s",)),
            _encoder("video", "track_actions", "track_spans", "video_embedding"),
            _preprocess("audio", "audio", "video", after="video_embedding"),
            _encoder("audio", "sound_activity"),
            Step(
                "event_postprocess",
                _same(
                    "sound_activity", "log_mel_mask", "track_actions", "track_spans", "duration_s"
                ),
                _same("labels", "scores", "start_s", "end_s"),
            ),
        ),
        "text_embedding": (
            _preprocess("text", "text"),
            _encoder("text", text_embedding="embedding"),
        ),
        "image_embedding": (
            _preprocess("image", "image"),
            _encoder("image", image_embedding="embedding"),
        ),
        "audio_embedding": (
            _preprocess("audio", "audio"),
            _encoder("audio", audio_embedding="embedding"),
        ),
        "video_embedding": (
            _preprocess("video", "video"),
            _encoder("video", video_embedding="embedding"),
        ),
        "text_to_image": (
            _preprocess("text", "text"),
            _encoder("text", "text_tokens"),
            Step(
                "image_decoder",
                _same("text_tokens", "attention_mask", "seed", "steps", "guidance_scale"),
                _same("image"),
            ),
        ),
    }
)
"""Each task's chain of stages."""


def tasks_with(parts: Collection[str]) -> tuple[str, ...]:
    """Return the tasks that a checkpoint can do with those of the `OPTIONAL_PARTS` that it has."""
    lacking = set(OPTIONAL_PARTS).difference(parts)
    return tuple(
        task for task in TASKS if lacking.isdisjoint(step.stage for step in ENSEMBLES[task])
    )


def signature_in(stage: str, tasks: Collection[str]) -> Signature:
    """Return a stage's signature; of an encoder's outputs, those alone that these tasks use."""
    signature = STAGES[stage]
    if not stage.endswith("_encoder"):
        return signature
    steps = [step for task in tasks for step in ENSEMBLES[task] if step.stage == stage]
    used = {output for step in steps for output in step.outputs}
    outputs = tuple(spec for spec in signature.outputs if spec.name in used)
    return Signature(signature.inputs, outputs, signature.optional)


def stages_of(tasks: Collection[str]) -> tuple[str, ...]:
    """Return the stages that tasks are made of, in the contract's order."""
    used = {step.stage for task in tasks for step in ENSEMBLES[task]}
    return tuple(stage for stage in STAGES if stage in used)
