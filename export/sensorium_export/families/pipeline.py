"""What all pipelines of diffusers share: the directory checked, and the scheduler as a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sensorium.errors import ConfigurationError
from sensorium_export.families.source import PICKLED
from sensorium_export.recipe import DiffusionRecipe
from sensorium_server.schedules import BETA_SCHEDULES, FINAL_SIGMAS, PREDICTIONS, SPACINGS

INDEX_FILE = "model_index.json"
MOST_STEPS = 100

SCHEDULERS: Mapping[str, str] = {
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "pndm",
    "EulerDiscreteScheduler": "euler",
}
"""What the server calls the classes that it does as well."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a pipeline: the classes that it may be of, its files, and which holds weights."""

    library: str
    classes: tuple[str, ...]
    files: tuple[str, ...]
    weights: str = ""


def files_of(components: Mapping[str, Component]) -> tuple[str, ...]:
    """Return the files that a pipeline is read from."""
    named = (f"{name}/{file}" for name, component in components.items() for file in component.files)
    return (INDEX_FILE, *named)


def check_pipeline(
    path: Path,
    index: Mapping[str, Any],
    components: Mapping[str, Component],
    unused: tuple[str, ...],
) -> None:
    """Check that a directory holds a pipeline that may be read and can be served.

    Args:
        path: The directory.
        index: What its model_index.json says.
        components: What the pipeline is made of.
        unused: Components that a drawing does not need.

    Raises:
        ConfigurationError: Components are missing, of another class, pickled or damaged, or the
            pipeline does more than is served.
    """
    present = {name: kind for name, kind in index.items() if isinstance(kind, list) and any(kind)}
    if "safety_checker" in present:
        raise ConfigurationError(
            f"{path.name} has a safety_checker, which is not served: pictures would be sent out "
            f"unchecked. If that is meant, or if they are checked elsewhere, set "
            f'"safety_checker": [null, null] in {INDEX_FILE}.'
        )
    problems = [
        f"{name} is {'.'.join(map(str, present[name]))}, and only {_allowed(component)} is served"
        for name, component in components.items()
        if name in present
        and present[name] not in [[component.library, kind] for kind in component.classes]
    ]
    problems += [
        f"{name} is {'.'.join(map(str, kind))}, which is not served"
        for name, kind in present.items()
        if name not in components and name not in unused
    ]
    if problems:
        more = _SCHEDULER_HINT if any(one.startswith("scheduler ") for one in problems) else ""
        raise ConfigurationError(f"{path.name}/{INDEX_FILE}: {'; '.join(problems)}.{more}")
    _check_files(path, present, components)


_SCHEDULER_HINT = (
    " Put a scheduler into the pipeline that is, and save it: "
    "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)."
)


def _allowed(component: Component) -> str:
    return " or ".join(f"{component.library}.{kind}" for kind in component.classes)


def _check_files(
    path: Path, present: Mapping[str, Any], components: Mapping[str, Component]
) -> None:
    pickled = sorted(
        f"{name}/{file.name}"
        for name, component in components.items()
        if component.weights and not (path / name / component.weights).is_file()
        for kind in PICKLED
        for file in (path / name).glob(kind)
    )
    if pickled:
        raise ConfigurationError(
            f"{path.name} holds pickled weights ({', '.join(pickled)}), which can run code and are "
            f"not read. Save them as safetensors: pipe.save_pretrained(directory)."
        )
    missing = [name for name in components if name not in present]
    missing += [
        f"{name}/{file}"
        for name, component in components.items()
        if name in present
        for file in component.files
        if not (path / name / file).is_file()
    ]
    if missing:
        raise ConfigurationError(
            f"{path.name} lacks {', '.join(missing)}. Save the whole pipeline into it: "
            f"pipe.save_pretrained(directory)."
        )
    for name, component in components.items():
        if component.weights:
            _check_weights(path, f"{name}/{component.weights}")


def _check_weights(path: Path, name: str) -> None:
    try:
        with safe_open(path / name, "pt"):
            pass
    except SafetensorError as error:
        raise ConfigurationError(f"{path.name}/{name} is truncated or damaged: {error}") from error


def diffusion_recipe(path: Path, kind: str, config: Mapping[str, Any]) -> DiffusionRecipe:
    """Return how the server does what a scheduler of diffusers does.

    Args:
        path: The directory, for messages.
        kind: The scheduler's class.
        config: The scheduler's config, as the pipeline has it.

    Raises:
        ConfigurationError: It does something else; everything that cannot be served is listed.
    """
    must = {**_MUST, **_MUST_OF[kind]}
    problems = [
        f"{name} = {config[name]!r} (served: {', '.join(map(repr, allowed))})"
        for name, allowed in must.items()
        if name in config and config[name] not in allowed
    ]
    if problems:
        raise ConfigurationError(
            f"{path.name}/scheduler/scheduler_config.json of {kind}: {'; '.join(problems)}. Put "
            f"another scheduler into the pipeline, for example DDIMScheduler.from_config, and save "
            f"it."
        )
    times = config["num_train_timesteps"]
    return DiffusionRecipe(
        scheduler=SCHEDULERS[kind],
        num_train_timesteps=times,
        max_steps=max(1, min(MOST_STEPS, times // 2)),
        beta_schedule=config["beta_schedule"],
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
        prediction_type=config["prediction_type"],
        timestep_spacing=config["timestep_spacing"],
        steps_offset=config["steps_offset"],
        set_alpha_to_one=config.get("set_alpha_to_one"),
        final_sigmas_type=config.get("final_sigmas_type"),
    )


_NOT = (False, None)
_MUST: Mapping[str, tuple[object, ...]] = {
    "beta_schedule": BETA_SCHEDULES,
    "prediction_type": PREDICTIONS,
    "timestep_spacing": SPACINGS,
    "trained_betas": _NOT,
    "rescale_betas_zero_snr": _NOT,
}
_MUST_OF: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "DDIMScheduler": {"thresholding": _NOT, "clip_sample": _NOT},
    "PNDMScheduler": {"skip_prk_steps": (True,)},
    "EulerDiscreteScheduler": {
        "final_sigmas_type": FINAL_SIGMAS,
        "interpolation_type": ("linear",),
        "timestep_type": ("discrete",),
        "use_karras_sigmas": _NOT,
        "use_exponential_sigmas": _NOT,
        "use_beta_sigmas": _NOT,
    },
}
"""What a scheduler's config may say."""
