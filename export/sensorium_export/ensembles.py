"""How each task is made of stages, and which tasks a checkpoint's parts allow.

How the tasks of a family of models are made, where it is otherwise, is in
`sensorium_export.families.ensembles`.

Ensembles are chains, in which no two steps ever run at once: where two of them do and one fails,
Triton 2.51 crashes or deadlocks; see decision 2. A step that would not wait for the one before it
by what it needs takes its embedding as `after`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sensorium.contract import STAGES, Signature

OPTIONAL_PARTS = ("audio_encoder", "video_encoder", "image_decoder")
"""The networks that a checkpoint may lack; all others it has."""

NETWORKS = ("image_encoder", "audio_encoder", "video_encoder", "text_encoder", "fusion")
"""The stages that are one ONNX graph each."""


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


Chain = tuple[Step, ...]
"""A task's steps, in the order in which they run."""


def same(*names: str) -> dict[str, str]:
    """Map tensors that the ensemble calls as the stage does."""
    return {name: name for name in names}


def preprocess(kind: str, *given: str, also: tuple[str, ...] = (), **mapped: str) -> Step:
    """Turn bytes into what the encoder sees, and into `also`."""
    return Step(f"{kind}_preprocess", same(*given) | mapped, same(*_SEEN[kind], *also))


def encoder(kind: str, *made: str, **renamed: str) -> Step:
    """Run an encoder; what it makes is called as the stage does, or as `renamed` says."""
    return Step(f"{kind}_encoder", same(*_SEEN[kind]), same(*made) | renamed)


def _media_join(other: str, *present: str) -> Step:
    names = ("audio_tokens", "audio_mask", f"{other}_tokens", f"{other}_mask", *present)
    return Step("media_join", same(*names), same("media_tokens", "media_mask"))


def _answer(media: str) -> tuple[Step, Step]:
    """Fuse a question with the tokens of its media, and put the answer into words."""
    fused = same("text_tokens", "attention_mask")
    fused |= {"media_tokens": f"{media}_tokens", "media_mask": f"{media}_mask"}
    return (
        Step("fusion", fused, same("fused_tokens")),
        decoder("fused_tokens", "attention_mask", "answer"),
    )


def decoder(memory: str, mask: str, text: str) -> Step:
    """Generate a text from a memory."""
    inputs = {"memory": memory, "memory_mask": mask}
    return Step("text_decoder", inputs, {"text": text, "score": "score"})


_QUESTION = (
    preprocess("text", text="question"),
    encoder("text", "text_tokens", "text_embedding"),
)

ENSEMBLES: Mapping[str, Chain] = MappingProxyType(
    {
        "visual_question_answering": (
            *_QUESTION,
            preprocess("image", "image", after="text_embedding"),
            encoder("image", "image_tokens", "image_mask"),
            *_answer("image"),
        ),
        "image_captioning": (
            preprocess("image", "image"),
            encoder("image", "image_tokens", "image_mask"),
            decoder("image_tokens", "image_mask", "caption"),
        ),
        "audio_question_answering": (
            *_QUESTION,
            preprocess("audio", "audio", after="text_embedding"),
            encoder("audio", "audio_tokens", "audio_mask"),
            *_answer("audio"),
        ),
        "audio_tagging": (
            preprocess("audio", "audio"),
            encoder("audio", "sound_activity"),
            Step(
                "tag_postprocess",
                same("sound_activity", "log_mel_mask"),
                same("labels", "scores"),
            ),
        ),
        "audio_visual_question_answering": (
            *_QUESTION,
            preprocess("image", "image", "audio", also=("image_present",), after="text_embedding"),
            encoder("image", "image_tokens", "image_mask", "image_embedding"),
            preprocess("audio", "audio", "image", after="image_embedding"),
            encoder("audio", "audio_tokens", "audio_mask"),
            _media_join("image", "image_present"),
            *_answer("media"),
        ),
        "video_question_answering": (
            *_QUESTION,
            preprocess("video", "video", after="text_embedding"),
            encoder("video", "video_tokens", "video_mask", "video_embedding"),
            preprocess("audio", "video", after="video_embedding"),
            encoder("audio", "audio_tokens", "audio_mask"),
            _media_join("video"),
            *_answer("media"),
        ),
        "video_captioning": (
            preprocess("video", "video"),
            encoder("video", "video_tokens", "video_mask"),
            decoder("video_tokens", "video_mask", "caption"),
        ),
        "action_recognition": (
            preprocess("video", "video"),
            encoder("video", "track_actions", "track_spans"),
            Step(
                "action_postprocess",
                same("track_actions", "track_spans"),
                same("labels", "scores"),
            ),
        ),
        "event_detection": (
            preprocess("video", "video", "audio", also=("duration_s",)),
            encoder("video", "track_actions", "track_spans", "video_embedding"),
            preprocess("audio", "audio", "video", after="video_embedding"),
            encoder("audio", "sound_activity"),
            Step(
                "event_postprocess",
                same(
                    "sound_activity", "log_mel_mask", "track_actions", "track_spans", "duration_s"
                ),
                same("labels", "scores", "start_s", "end_s"),
            ),
        ),
        "text_embedding": (
            preprocess("text", "text"),
            encoder("text", text_embedding="embedding"),
        ),
        "image_embedding": (
            preprocess("image", "image"),
            encoder("image", image_embedding="embedding"),
        ),
        "audio_embedding": (
            preprocess("audio", "audio"),
            encoder("audio", audio_embedding="embedding"),
        ),
        "video_embedding": (
            preprocess("video", "video"),
            encoder("video", video_embedding="embedding"),
        ),
        "text_to_image": (
            preprocess("text", "text"),
            encoder("text", "text_tokens"),
            Step(
                "image_decoder",
                same("text_tokens", "attention_mask", "seed", "steps", "guidance_scale"),
                same("image"),
            ),
        ),
    }
)
"""Each task's chain of stages, in a checkpoint of Sensorium's own format."""


def chains_with(parts: Collection[str]) -> dict[str, Chain]:
    """Return the chains of the tasks that a checkpoint can do with these `OPTIONAL_PARTS`."""
    lacking = set(OPTIONAL_PARTS).difference(parts)
    return {
        task: steps
        for task, steps in ENSEMBLES.items()
        if lacking.isdisjoint(step.stage for step in steps)
    }


def signature_in(stage: str, chains: Iterable[Chain]) -> Signature:
    """Return a stage's signature as these chains use it.

    A preprocessor keeps its inputs and puts out what they want of it. A network takes and gives
    what they wire: it has no optional inputs.
    """
    signature = STAGES[stage]
    steps = [step for chain in chains for step in chain if step.stage == stage]
    given = {name for step in steps for name in step.inputs}
    made = {name for step in steps for name in step.outputs}
    outputs = tuple(spec for spec in signature.outputs if spec.name in made)
    if stage not in NETWORKS:
        optional = tuple(spec for spec in signature.optional if spec.name in given)
        return Signature(signature.inputs, outputs, optional)
    inputs = (*signature.inputs, *signature.optional)
    return Signature(tuple(spec for spec in inputs if spec.name in given), outputs)


def stages_of(chains: Iterable[Chain]) -> tuple[str, ...]:
    """Return the stages that chains are made of, in the contract's order."""
    used = {step.stage for chain in chains for step in chain}
    return tuple(stage for stage in STAGES if stage in used)
