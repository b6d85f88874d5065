"""The public contract: every tensor name, dtype and shape of every task and stage, written once.

The client packs by it, the exporter names graph inputs and dynamic axes by it, the model
repository is generated and checked against it, and tests draw their inputs from it.

A shape leaves out the leading batch axis. An axis is a number, or the name of a size: names in
`DYNAMIC_AXES` vary from request to request unless the checkpoint fixes them too, all others are
fixed by its config.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from sensorium.errors import ConfigurationError

_BUNDLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

Axis = int | str

BATCH = "batch"
SEQUENCE = "sequence"
MEL_FRAMES = "mel_frames"
MEDIA = "media"
MEMORY = "memory"
PAST = "past"
EVENTS = "events"
SAMPLES = "samples"
SPEECH_FRAMES = "speech_frames"
DYNAMIC_AXES = frozenset(
    {BATCH, SEQUENCE, MEL_FRAMES, MEDIA, MEMORY, PAST, EVENTS, SAMPLES, SPEECH_FRAMES}
)


class DType(StrEnum):
    """The element types of the KServe v2 protocol that Sensorium uses."""

    BYTES = "BYTES"
    FP32 = "FP32"
    INT64 = "INT64"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor; `shape` leaves out the batch axis."""

    name: str
    dtype: DType
    shape: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a task, a stage or a graph takes and gives; `optional` inputs may be left out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional: tuple[TensorSpec, ...] = ()


IMAGE = TensorSpec("image", DType.BYTES, (1,))
AUDIO = TensorSpec("audio", DType.BYTES, (1,))
VIDEO = TensorSpec("video", DType.BYTES, (1,))
QUESTION = TensorSpec("question", DType.BYTES, (1,))
TEXT = TensorSpec("text", DType.BYTES, (1,))
ANSWER = TensorSpec("answer", DType.BYTES, (1,))
CAPTION = TensorSpec("caption", DType.BYTES, (1,))
SCORE = TensorSpec("score", DType.FP32, (1,))
EMBEDDING = TensorSpec("embedding", DType.FP32, ("embedding_dim",))
SOUND_LABELS = TensorSpec("labels", DType.BYTES, ("sounds",))
SOUND_SCORES = TensorSpec("scores", DType.FP32, ("sounds",))
ACTION_LABELS = TensorSpec("labels", DType.BYTES, ("actions",))
ACTION_SCORES = TensorSpec("scores", DType.FP32, ("actions",))
EVENT_LABELS = TensorSpec("labels", DType.BYTES, (EVENTS,))
EVENT_SCORES = TensorSpec("scores", DType.FP32, (EVENTS,))
START_S = TensorSpec("start_s", DType.FP32, (EVENTS,))
END_S = TensorSpec("end_s", DType.FP32, (EVENTS,))
CLASS_LABELS = TensorSpec("labels", DType.BYTES, ("classes",))
CLASS_SCORES = TensorSpec("scores", DType.FP32, ("classes",))
GENERATED_TEXT = TensorSpec("generated_text", DType.BYTES, (1,))
TRANSCRIPT = TensorSpec("transcript", DType.BYTES, (1,))
SEED = TensorSpec("seed", DType.INT64, (1,))
STEPS = TensorSpec("steps", DType.INT64, (1,))
GUIDANCE_SCALE = TensorSpec("guidance_scale", DType.FP32, (1,))

PIXEL_VALUES = TensorSpec("pixel_values", DType.FP32, (3, "image_size", "image_size"))
IMAGE_EXTENT = TensorSpec("image_extent", DType.INT64, (2,))
"""How much of `pixel_values` a picture that keeps its shape covers: height and width, pixels."""

IMAGE_TOKENS = TensorSpec("image_tokens", DType.FP32, ("image_tokens", "media_width"))
IMAGE_MASK = TensorSpec("image_mask", DType.INT64, ("image_tokens",))
IMAGE_EMBEDDING = TensorSpec("image_embedding", DType.FP32, ("embedding_dim",))
IMAGE_PRESENT = TensorSpec("image_present", DType.INT64, (1,))
LOG_MEL = TensorSpec("log_mel", DType.FP32, (MEL_FRAMES, "mels"))
LOG_MEL_MASK = TensorSpec("log_mel_mask", DType.INT64, (MEL_FRAMES,))
AUDIO_TOKENS = TensorSpec("audio_tokens", DType.FP32, ("audio_tokens", "media_width"))
AUDIO_MASK = TensorSpec("audio_mask", DType.INT64, ("audio_tokens",))
AUDIO_EMBEDDING = TensorSpec("audio_embedding", DType.FP32, ("embedding_dim",))
WAVEFORM = TensorSpec("waveform", DType.FP32, (SAMPLES,))
WAVEFORM_MASK = TensorSpec("waveform_mask", DType.INT64, (SAMPLES,))
CTC_LOGITS = TensorSpec("ctc_logits", DType.FP32, (SPEECH_FRAMES, "vocabulary"))
CTC_MASK = TensorSpec("ctc_mask", DType.INT64, (SPEECH_FRAMES,))
SOUND_ACTIVITY = TensorSpec("sound_activity", DType.FP32, (MEL_FRAMES, "sounds"))
FRAMES = TensorSpec("frames", DType.FP32, ("frames", 3, "image_size", "image_size"))
DURATION_S = TensorSpec("duration_s", DType.FP32, (1,))
VIDEO_TOKENS = TensorSpec("video_tokens", DType.FP32, ("video_tokens", "media_width"))
VIDEO_MASK = TensorSpec("video_mask", DType.INT64, ("video_tokens",))
VIDEO_EMBEDDING = TensorSpec("video_embedding", DType.FP32, ("embedding_dim",))
TRACK_ACTIONS = TensorSpec("track_actions", DType.FP32, ("tracks", "actions"))
TRACK_SPANS = TensorSpec("track_spans", DType.FP32, ("tracks", 3))
MEDIA_TOKENS = TensorSpec("media_tokens", DType.FP32, (MEDIA, "media_width"))
MEDIA_MASK = TensorSpec("media_mask", DType.INT64, (MEDIA,))
INPUT_IDS = TensorSpec("input_ids", DType.INT64, (SEQUENCE,))
ATTENTION_MASK = TensorSpec("attention_mask", DType.INT64, (SEQUENCE,))
TEXT_TOKENS = TensorSpec("text_tokens", DType.FP32, (SEQUENCE, "text_width"))
TEXT_EMBEDDING = TensorSpec("text_embedding", DType.FP32, ("embedding_dim",))
FUSED_TOKENS = TensorSpec("fused_tokens", DType.FP32, (SEQUENCE, "text_width"))
CLASS_LOGITS = TensorSpec("class_logits", DType.FP32, ("classes",))
DECODER_MEMORY = TensorSpec("memory", DType.FP32, (MEMORY, "memory_width"))
DECODER_MEMORY_MASK = TensorSpec("memory_mask", DType.INT64, (MEMORY,))

GENERATION = "generation"
"""The parameter of a request that says how its text is generated; no tensor."""

AFTER = TensorSpec("after", DType.FP32, ("embedding_dim",))
"""Ignored: a stage that takes it runs after the stage that makes it. See decision 2."""

_KV = ("kv_layers", "heads")
CROSS = TensorSpec("cross", DType.FP32, (*_KV, MEMORY, "head_dim"))
PAST_KV = TensorSpec("past", DType.FP32, (*_KV, PAST, "head_dim"))
PRESENT_KV = TensorSpec("present", DType.FP32, (*_KV, "head_dim"))
TOKEN_ID = TensorSpec("token_id", DType.INT64, ())
POSITION = TensorSpec("position", DType.INT64, ())
LOGITS = TensorSpec("logits", DType.FP32, ("vocabulary",))

_NOISE = ("noise_channels", "noise_size", "noise_size")
NOISY = TensorSpec("noisy", DType.FP32, _NOISE)
NOISE_LEVEL = TensorSpec("noise_level", DType.FP32, ())
CONDITION = TensorSpec("condition", DType.FP32, ("layout", "width"))
VELOCITY = TensorSpec("velocity", DType.FP32, _NOISE)
LATENTS = TensorSpec("latents", DType.FP32, _NOISE)
PICTURE = TensorSpec("picture", DType.FP32, (3, "image_size", "image_size"))

TASKS: Mapping[str, Signature] = MappingProxyType(
    {
        "visual_question_answering": Signature((IMAGE, QUESTION), (ANSWER, SCORE)),
        "image_captioning": Signature((IMAGE,), (CAPTION, SCORE)),
        "audio_question_answering": Signature((AUDIO, QUESTION), (ANSWER, SCORE)),
        "audio_tagging": Signature((AUDIO,), (SOUND_LABELS, SOUND_SCORES)),
        "audio_visual_question_answering": Signature((IMAGE, AUDIO, QUESTION), (ANSWER, SCORE)),
        "video_question_answering": Signature((VIDEO, QUESTION), (ANSWER, SCORE)),
        "video_captioning": Signature((VIDEO,), (CAPTION, SCORE)),
        "action_recognition": Signature((VIDEO,), (ACTION_LABELS, ACTION_SCORES)),
        "event_detection": Signature((VIDEO, AUDIO), (EVENT_LABELS, EVENT_SCORES, START_S, END_S)),
        "text_embedding": Signature((TEXT,), (EMBEDDING,)),
        "image_embedding": Signature((IMAGE,), (EMBEDDING,)),
        "audio_embedding": Signature((AUDIO,), (EMBEDDING,)),
        "video_embedding": Signature((VIDEO,), (EMBEDDING,)),
        "text_to_image": Signature((TEXT, SEED, STEPS, GUIDANCE_SCALE), (IMAGE,)),
        "image_classification": Signature((IMAGE,), (CLASS_LABELS, CLASS_SCORES)),
        "text_generation": Signature((TEXT,), (GENERATED_TEXT, SCORE)),
        "speech_recognition": Signature((AUDIO,), (TRANSCRIPT, SCORE)),
    }
)
"""The Triton ensembles that clients call; which of them a bundle has depends on its checkpoint.

Where a task takes two kinds of media (`event_detection`, `audio_visual_question_answering`), one of
them may be empty bytes: a missing modality is masked. Tags are sorted by score, best first, and all
labels are among them; rows with fewer events than the request's longest end in empty labels.
"""

STAGES: Mapping[str, Signature] = MappingProxyType(
    {
        "image_preprocess": Signature(
            (IMAGE,), (PIXEL_VALUES, IMAGE_PRESENT, IMAGE_EXTENT), optional=(AUDIO, AFTER)
        ),
        "audio_preprocess": Signature(
            (),
            (LOG_MEL, LOG_MEL_MASK, WAVEFORM, WAVEFORM_MASK),
            optional=(AUDIO, VIDEO, IMAGE, AFTER),
        ),
        "video_preprocess": Signature((VIDEO,), (FRAMES, DURATION_S), optional=(AUDIO, AFTER)),
        "text_preprocess": Signature((TEXT,), (INPUT_IDS, ATTENTION_MASK)),
        "image_encoder": Signature(
            (PIXEL_VALUES,),
            (IMAGE_TOKENS, IMAGE_MASK, IMAGE_EMBEDDING, CLASS_LOGITS),
            optional=(IMAGE_EXTENT,),
        ),
        "audio_encoder": Signature(
            (LOG_MEL, LOG_MEL_MASK),
            (
                AUDIO_TOKENS,
                AUDIO_MASK,
                AUDIO_EMBEDDING,
                SOUND_ACTIVITY,
                CLASS_LOGITS,
                CTC_LOGITS,
                CTC_MASK,
            ),
            optional=(WAVEFORM, WAVEFORM_MASK),
        ),
        "video_encoder": Signature(
            (FRAMES,),
            (VIDEO_TOKENS, VIDEO_MASK, VIDEO_EMBEDDING, TRACK_ACTIONS, TRACK_SPANS, CLASS_LOGITS),
        ),
        "text_encoder": Signature((INPUT_IDS, ATTENTION_MASK), (TEXT_TOKENS, TEXT_EMBEDDING)),
        "media_join": Signature(
            (AUDIO_TOKENS, AUDIO_MASK),
            (MEDIA_TOKENS, MEDIA_MASK),
            optional=(IMAGE_TOKENS, IMAGE_MASK, IMAGE_PRESENT, VIDEO_TOKENS, VIDEO_MASK),
        ),
        "fusion": Signature(
            (TEXT_TOKENS, ATTENTION_MASK, MEDIA_TOKENS, MEDIA_MASK), (FUSED_TOKENS, CLASS_LOGITS)
        ),
        "text_decoder": Signature((DECODER_MEMORY, DECODER_MEMORY_MASK), (TEXT, SCORE)),
        "tag_postprocess": Signature((SOUND_ACTIVITY, LOG_MEL_MASK), (SOUND_LABELS, SOUND_SCORES)),
        "action_postprocess": Signature(
            (TRACK_ACTIONS, TRACK_SPANS), (ACTION_LABELS, ACTION_SCORES)
        ),
        "event_postprocess": Signature(
            (SOUND_ACTIVITY, LOG_MEL_MASK, TRACK_ACTIONS, TRACK_SPANS, DURATION_S),
            (EVENT_LABELS, EVENT_SCORES, START_S, END_S),
        ),
        "label_postprocess": Signature((CLASS_LOGITS,), (CLASS_LABELS, CLASS_SCORES)),
        "answer_postprocess": Signature((CLASS_LOGITS,), (ANSWER, SCORE)),
        "ctc_postprocess": Signature((CTC_LOGITS, CTC_MASK), (TRANSCRIPT, SCORE)),
        "image_decoder": Signature(
            (TEXT_TOKENS, ATTENTION_MASK, SEED, STEPS, GUIDANCE_SCALE), (IMAGE,)
        ),
    }
)
"""The Triton models that ensembles are made of, with all that their tensors can be.

A bundle's networks take and give those that its ensembles wire, and no others.

A preprocessor that also gets another modality's bytes lets its own be empty when those are not: its
mask (`image_present`, `log_mel_mask`, or `duration_s` 0) then says so. `audio_preprocess` takes the
sound track of `video` when `audio` is empty; a silent video has no valid mel frame. `track_spans`
holds the probability that a track is one, and its action's start and end as parts of the clip.
"""

DECODER_GRAPHS: Mapping[str, Signature] = MappingProxyType(
    {
        "cross": Signature((DECODER_MEMORY,), (CROSS,)),
        "step": Signature(
            (TOKEN_ID, POSITION, PAST_KV, CROSS, DECODER_MEMORY_MASK), (LOGITS, PRESENT_KV)
        ),
    }
)
"""The two ONNX graphs inside `text_decoder`.

`cross` runs once per request: keys and values of the memory. `step` runs once per generated
token: `past` holds the keys and values of earlier tokens, of which row i has `position[i]` valid
ones; `present` is this token's own. `kv_layers` is twice the number of layers: key and value of
layer l lie at 2l and 2l+1.
"""


DIFFUSION_GRAPHS: Mapping[str, Signature] = MappingProxyType(
    {
        "condition": Signature((TEXT_TOKENS, ATTENTION_MASK), (CONDITION,)),
        "denoise": Signature((NOISY, NOISE_LEVEL, CONDITION), (VELOCITY,)),
    }
)
"""The two ONNX graphs inside `image_decoder`.

`condition` runs twice per request: on the text, and with a mask of zeros for the unconditional half
of classifier-free guidance. `denoise` runs once per sampling step on both halves. In Sensorium's
own checkpoints, `noise_level` is the time in [0, 1], 1 for noise alone, and `velocity` the v of
Salimans and Ho (2022); in others, the time that they were trained with, and what their schedule
says that they predict. `noisy` is a picture, or latents where there is a graph `decode`.
"""

LATENT_GRAPHS: Mapping[str, Signature] = MappingProxyType(
    {"decode": Signature((LATENTS,), (PICTURE,))}
)
"""The third ONNX graph inside an `image_decoder` that denoises latents; it runs once per picture.

`picture` has values in [-1, 1]; what lies beyond is cut off.
"""


def checked_bundle(bundle: str) -> str:
    """Return the name of a bundle; empty for the default bundle.

    Raises:
        ConfigurationError: it is not a name.
    """
    if bundle and not _BUNDLE_NAME.fullmatch(bundle):
        raise ConfigurationError(
            f"bundle = {bundle!r} is not a bundle's name: a small letter, then small letters, "
            f"digits and underscores, 63 at most."
        )
    return bundle


def model_name(name: str, bundle: str = "") -> str:
    """Return what Triton calls a task or stage of a bundle; the default bundle has no name.

    Several bundles share a model repository: `clip_vit_b32.image_embedding` is beside
    `image_embedding`.
    """
    return f"{bundle}.{name}" if bundle else name


def bare_name(model: str) -> str:
    """Return the task or stage behind a model's name: `model_name` undone."""
    return model.rpartition(".")[2]


def signature_of(model: str) -> Signature:
    """Return the signature of a task or stage.

    Raises:
        KeyError: `model` is neither.
    """
    return TASKS[model] if model in TASKS else STAGES[model]
