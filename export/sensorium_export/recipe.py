"""What a checkpoint says about serving it: sizes, preprocessing, text and tolerances."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from sensorium.contract import (
    BATCH,
    MEDIA,
    MEL_FRAMES,
    MEMORY,
    PAST,
    SAMPLES,
    SEQUENCE,
    TASKS,
    Signature,
)
from sensorium.errors import ConfigurationError
from sensorium_export.ensembles import OPTIONAL_PARTS, Chain, chains_with, signature_in, stages_of
from sensorium_export.sections import overridden, picked
from sensorium_export.tolerance import (
    ENGINE_PRECISIONS,
    FP32,
    PRECISIONS,
    Tolerance,
    tolerance_of,
)

if TYPE_CHECKING:  # They import PyTorch, which `sensorium inspect` does without.
    from sensorium_export.checkpoint import Checkpoint
    from sensorium_export.models import ModelConfig

Values = TypeVar("Values")

MAX_BATCH_SIZE = 64
"""Rows that Triton may put into one batch: a row of the default bundle is small."""

PROVEN_MEL_FRAMES = 512
"""The longest sound that a graph is compared on, 16 s; longer ones are served all the same."""

PROVEN_SAMPLES = 16_000
"""The same for a network that hears samples themselves: a second of speech."""


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """How a picture becomes `pixel_values`; see `sensorium_server.stages.image`.

    `resize_edge` is the shortest edge before `center_crop` where it is not `image_size`, or that of
    `fit`, whose longest edge and whose edges' divisor follow.
    """

    image_size: int
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: str
    resize_edge: int | None = None
    longest_edge: int | None = None
    multiple: int | None = None
    crop_rounding: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRecipe:
    """How tokens are chosen; named as the decoder's parameters are, see `decoder_backend`.

    Where `prompt_ids` or `eos_ids` hold tokens, these come in the place of the text's `bos_id` or
    `eos_id`. As it is by default, decoding is greedy and nothing is forbidden.
    """

    prompt_ids: tuple[int, ...] = ()
    eos_ids: tuple[int, ...] = ()
    min_new_tokens: int = 0
    suppress_ids: tuple[int, ...] = ()
    begin_suppress_ids: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: str = "false"
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    slots: int = MAX_BATCH_SIZE


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """How text becomes ids, and where and how it is generated.

    `pad_to` is the length of every row, for a network that reads its padding.
    """

    max_tokens: int
    pad_id: int
    unk_id: int
    bos_id: int
    eos_id: int
    max_new_tokens: int
    pad_to: int | None = None
    generation: GenerationRecipe = GenerationRecipe()


@dataclass(frozen=True, slots=True)
class AudioRecipe:
    """How a sound becomes `log_mel`; see `sensorium_server.stages.log_mel`.

    `features` and `window` are set where another library's network hears it; see
    `sensorium_server.stages.window_features`.
    """

    sample_rate: int
    n_fft: int
    hop: int
    mels: int
    min_hz: float
    max_hz: float
    mean: float
    std: float
    noise_reduction: str = "none"
    features: str | None = None
    window: int | None = None

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop / self.sample_rate


@dataclass(frozen=True, slots=True)
class WaveformRecipe:
    """How a sound becomes `waveform`; see `sensorium_server.stages.waveform`."""

    sample_rate: int
    normalize: bool
    features: str = "waveform"


@dataclass(frozen=True, slots=True)
class CtcRecipe:
    """How the frames' tokens become a text; see `sensorium_server.stages.transcripts`."""

    tokens: tuple[str, ...]
    blank: str
    word_delimiter: str
    lower_case: bool = False
    clean_up: bool = False


@dataclass(frozen=True, slots=True)
class VideoRecipe:
    """Which frames of a clip the encoder sees; each is treated as a picture is.

    `sampling` is `uniform`, or `fps` with so many frames a second; see
    `sensorium_server.stages.sampling`.
    """

    frames: int
    sampling: str = "uniform"
    fps: float | None = None


@dataclass(frozen=True, slots=True)
class EventRecipe:
    """When an activity or a track is an event; see `sensorium_server.stages.events`."""

    idle_label: str = "stands still"
    sound_threshold: float = 0.5
    median_frames: int = 5
    min_frames: int = 2
    track_threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class DiffusionRecipe:
    """The noise that a denoiser was trained on, and how it is removed.

    See `sensorium_server.schedules`; what belongs to another scheduler is None.
    """

    scheduler: str
    num_train_timesteps: int
    beta_schedule: str
    beta_start: float
    beta_end: float
    prediction_type: str
    timestep_spacing: str
    steps_offset: int
    max_steps: int
    set_alpha_to_one: bool | None = None
    final_sigmas_type: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that export, repository and verification take from a checkpoint's config.

    `bundle` is the name that its models share, empty for the default bundle's, which have none.
    `chains` has the steps of each task that the checkpoint can do. `sizes` gives the number for
    each fixed axis of the contract, `largest` the greatest number for each dynamic axis that
    graphs are compared on. `precision` has the stages that are not served in fp32, where `drift`
    stands in the place of `tolerance`. What the checkpoint lacks an encoder for is None, and its
    labels are empty; `class_labels` are those of a classifier. `waveform` stands in the place of
    `audio` where a network hears samples; `ctc` is set where it gives a token for each frame.
    `diffusion` is None for an image decoder of Sensorium's own; one that has it denoises latents.
    """

    name: str
    bundle: str
    chains: Mapping[str, Chain]
    sizes: Mapping[str, int]
    largest: Mapping[str, int]
    tolerance: Tolerance
    drift: Mapping[str, Tolerance]
    precision: Mapping[str, str] = field(default_factory=dict)
    image: ImageRecipe | None = None
    text: TextRecipe | None = None
    audio: AudioRecipe | None = None
    waveform: WaveformRecipe | None = None
    video: VideoRecipe | None = None
    audio_labels: tuple[str, ...] = ()
    video_labels: tuple[str, ...] = ()
    class_labels: tuple[str, ...] = ()
    activation: str = "softmax"
    ctc: CtcRecipe | None = None
    events: EventRecipe = EventRecipe()
    diffusion: DiffusionRecipe | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it can do, in the contract's order."""
        return tuple(task for task in TASKS if task in self.chains)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that they are made of."""
        return stages_of(self.chains.values())

    def signature(self, name: str) -> Signature:
        """Return the signature of a task, or of a stage as these tasks use it."""
        return TASKS[name] if name in TASKS else signature_in(name, self.chains.values())


def recipe_from_checkpoint(checkpoint: "Checkpoint", bundle: str = "") -> Recipe:
    """Read the recipe out of a loaded checkpoint; `bundle` names it otherwise than its config does.

    Raises:
        ConfigurationError: Keys are missing from its config.json; all of them are listed.
    """
    model, config = checkpoint.model.config, checkpoint.config
    parts = [part for part in OPTIONAL_PARTS if getattr(model, part) != "none"]
    hears, watches = "audio_encoder" in parts, "video_encoder" in parts
    sections = {"image_preprocess": ImageRecipe, "text": TextRecipe}
    sections |= {"audio_preprocess": AudioRecipe} if hears else {}
    sections |= {"video_preprocess": VideoRecipe} if watches else {}
    labels = [name for name, has in (("audio_labels", hears), ("video_labels", watches)) if has]
    _check_keys(checkpoint, sections, labels)
    if "generation" in config["text"]:
        raise ConfigurationError(
            f"{checkpoint.path.name}/config.json: text.generation is for checkpoints of other "
            f"libraries; this one is proven by greedy decoding. Remove it."
        )
    return Recipe(
        name=bundle or checkpoint.name,
        bundle=bundle,
        chains=MappingProxyType(chains_with(parts)),
        sizes=MappingProxyType(model.sizes),
        largest=MappingProxyType(_largest(model, config["text"])),
        image=picked(ImageRecipe, config["image_preprocess"]),
        text=picked(TextRecipe, config["text"]),
        audio=picked(AudioRecipe, config["audio_preprocess"]) if hears else None,
        video=picked(VideoRecipe, config["video_preprocess"]) if watches else None,
        audio_labels=tuple(config["audio_labels"]) if hears else (),
        video_labels=tuple(config["video_labels"]) if watches else (),
        events=overridden(EventRecipe, {}, config.get("events", {}), "events"),
        tolerance=tolerance_of(FP32, config.get("parity", {}), "parity"),
        drift=_drift(config.get("drift", {})),
    )


def required(section: Values | None) -> Values:
    """Return a section of a recipe that the caller's stages cannot be without."""
    assert section is not None  # noqa: S101 - those who ask have the stage that needs it
    return section


def family_recipe(
    bundle: str,
    chains: Mapping[str, Chain],
    sizes: Mapping[str, int],
    **sections: Any,  # noqa: ANN401
) -> Recipe:
    """Return the recipe of a checkpoint of another format; its bundle always has a name.

    Args:
        bundle: The name.
        chains: The steps of each task.
        sizes: The number for every fixed axis; a dynamic axis among them is fixed.
        sections: `image`, `text`, `audio`, `waveform`, `video`, `class_labels`, `activation`,
            `ctc` and `diffusion`, as they apply.
    """
    text = sections.get("text")
    largest = {BATCH: MAX_BATCH_SIZE, MEL_FRAMES: PROVEN_MEL_FRAMES, SAMPLES: PROVEN_SAMPLES}
    if text is not None:
        media = max(sizes.get("image_tokens", 1), sizes.get("audio_tokens", 1))
        largest |= {
            SEQUENCE: text.max_tokens,
            MEDIA: media,
            MEMORY: max(text.max_tokens, media),
            PAST: max(1, text.max_new_tokens - 1),
        }
    return Recipe(
        name=bundle,
        bundle=bundle,
        chains=MappingProxyType(dict(chains)),
        sizes=MappingProxyType(dict(sizes)),
        largest=MappingProxyType(
            {axis: most for axis, most in largest.items() if axis not in sizes}
        ),
        tolerance=tolerance_of(FP32, {}, "parity"),
        drift=_drift({}),
        **sections,
    )


def _check_keys(
    checkpoint: "Checkpoint", sections: Mapping[str, type], labels: Iterable[str]
) -> None:
    missing = [
        f"{section}.{field.name}"
        for section, kind in sections.items()
        for field in fields(kind)
        if field.default is MISSING and field.name not in checkpoint.config.get(section, {})
    ]
    missing += [name for name in labels if not checkpoint.config.get(name)]
    if missing:
        raise ConfigurationError(
            f"{checkpoint.path.name}/config.json lacks {', '.join(missing)}; add them"
        )


def _largest(model: "ModelConfig", text: Mapping[str, int]) -> dict[str, int]:
    return {
        BATCH: MAX_BATCH_SIZE,
        SEQUENCE: text["max_tokens"],
        MEL_FRAMES: PROVEN_MEL_FRAMES,
        MEDIA: model.audio_tokens + max(model.image_tokens, model.video_tokens),
        MEMORY: max(text["max_tokens"], model.image_tokens, model.video_tokens),
        PAST: text["max_new_tokens"] - 1,
    }


def _drift(overrides: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Tolerance]:
    lower = [one for one in dict.fromkeys((*PRECISIONS, *ENGINE_PRECISIONS)) if one != FP32]
    if unknown := sorted(overrides.keys() - set(lower)):
        raise ConfigurationError(
            f"config.json: drift.{unknown[0]} is no precision; those are: {', '.join(lower)}"
        )
    return MappingProxyType(
        {one: tolerance_of(one, overrides.get(one, {}), f"drift.{one}") for one in lower}
    )
