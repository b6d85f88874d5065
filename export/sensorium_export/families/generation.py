"""A checkpoint's generation settings, of transformers' `GenerationConfig`, as a text's recipe.

What the decoder cannot reproduce is refused by name: a bundle never decodes otherwise than its
checkpoint says.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypedDict

from sensorium.errors import ConfigurationError
from sensorium_export.recipe import MAX_BATCH_SIZE, GenerationRecipe

DEFAULT_NEW_TOKENS = 20
DEFAULT_TOP_K = 50
"""What transformers assumes where a checkpoint says nothing."""

_NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "max_time": (),
        "stop_strings": (),
        "encoder_repetition_penalty": (1,),
        "encoder_no_repeat_ngram_size": (0,),
        "bad_words_ids": (),
        "renormalize_logits": (False,),
        "forced_bos_token_id": (),
        "forced_eos_token_id": (),
        "exponential_decay_length_penalty": (),
        "sequence_bias": (),
        "token_healing": (False,),
        "guidance_scale": (1,),
        "watermarking_config": (),
        "num_return_sequences": (1,),
        "penalty_alpha": (0,),
        "dola_layers": (),
        "diversity_penalty": (0,),
        "num_beam_groups": (1,),
        "constraints": (),
        "force_words_ids": (),
        "low_memory": (False,),
        "return_timestamps": (False,),
    }
)
"""Settings that cannot be served, with the values, besides None, at which they do nothing."""

_NEUTRAL_WHEN_DRAWING: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "min_p": (0,),
        "top_h": (),
        "typical_p": (1,),
        "epsilon_cutoff": (0,),
        "eta_cutoff": (0,),
    }
)


class TextGeneration(TypedDict):
    """The fields of a `TextRecipe` that say how its text is generated."""

    bos_id: int
    eos_id: int
    max_new_tokens: int
    generation: GenerationRecipe


def generation_from(
    config: Any,  # noqa: ANN401 - transformers is untyped
    *,
    prompt_ids: tuple[int, ...] = (),
    eos_ids: tuple[int, ...] = (),
    slots: int = MAX_BATCH_SIZE,
) -> TextGeneration:
    """Read a `GenerationConfig`.

    Usage:
        TextRecipe(max_tokens=…, pad_id=…, unk_id=…, **generation_from(model.generation_config))

    Args:
        config: The settings, as `model.generation_config` holds them.
        prompt_ids: The forced first tokens, where the family knows better than the settings.
        eos_ids: The end tokens, likewise.
        slots: Texts and beams that are generated side by side; fewer for large decoders.

    Raises:
        ConfigurationError: Settings cannot be served or are missing; all of them are named.
    """
    problems = _unserved(config)
    if _or(config.num_beams, 1) > slots:
        problems.append(f"num_beams = {config.num_beams} with {slots} slots")
    prompt_ids = prompt_ids or _prompt(config, problems)
    eos_ids = eos_ids or _ids(config, "eos_token_id")
    if not eos_ids:
        problems.append("eos_token_id is missing")
    longest = _new_tokens(config, len(prompt_ids))
    if longest < 1:
        problems.append(f"max_length = {config.max_length} leaves no token after {prompt_ids}")
    if problems:
        raise ConfigurationError(
            f"the checkpoint's generation settings cannot be served: {'; '.join(problems)}. "
            f"Change them in its generation_config.json."
        )
    shortest = max(_or(config.min_new_tokens, 0), _or(config.min_length, 0) - len(prompt_ids), 0)
    return TextGeneration(
        bos_id=prompt_ids[0],
        eos_id=eos_ids[0],
        max_new_tokens=longest,
        generation=GenerationRecipe(
            prompt_ids=prompt_ids if len(prompt_ids) > 1 else (),
            eos_ids=eos_ids if len(eos_ids) > 1 else (),
            min_new_tokens=min(shortest, longest),
            suppress_ids=_ids(config, "suppress_tokens"),
            begin_suppress_ids=_ids(config, "begin_suppress_tokens"),
            repetition_penalty=float(_or(config.repetition_penalty, 1)),
            no_repeat_ngram_size=_or(config.no_repeat_ngram_size, 0),
            **_choice(config),
            slots=slots,
        ),
    )


def _or(value: Any, default: Any) -> Any:  # noqa: ANN401 - a number of any kind
    return default if value is None else value


def _ids(config: Any, name: str) -> tuple[int, ...]:  # noqa: ANN401
    """Return a setting that is a token, several or None; a negative one stands for none."""
    value = getattr(config, name, None)
    if value is None:
        return ()
    tokens = value if isinstance(value, list | tuple) else [value]
    return tuple(int(token) for token in tokens if int(token) >= 0)


def _unserved(config: Any) -> list[str]:  # noqa: ANN401
    neutral = {**_NEUTRAL, **(_NEUTRAL_WHEN_DRAWING if config.do_sample else {})}
    found = {name: getattr(config, name, None) for name in neutral}
    problems = [
        f"{name} = {value!r}"
        for name, value in found.items()
        if value is not None and value not in neutral[name]
    ]
    if config.do_sample and _or(config.num_beams, 1) > 1:
        problems.append(f"do_sample with num_beams = {config.num_beams}")
    return problems


def _prompt(config: Any, problems: list[str]) -> tuple[int, ...]:  # noqa: ANN401
    """Return the first tokens as the settings name them."""
    if given := [name for name in ("language", "task") if getattr(config, name, None)]:
        problems.append(f"{' and '.join(given)} without prompt_ids made of them")
    start = _ids(config, "decoder_start_token_id") or _ids(config, "bos_token_id")
    if len(start) != 1:
        problems.append(f"decoder_start_token_id or bos_token_id is {list(start)}, not one token")
        return (0,)
    forced = [tuple(pair) for pair in getattr(config, "forced_decoder_ids", None) or ()]
    if [at for at, _ in forced] != list(range(1, len(forced) + 1)) or (
        None in dict(forced).values()
    ):
        problems.append(f"forced_decoder_ids = {forced}, with gaps")
        return start
    return (*start, *(int(token) for _, token in forced))


def _new_tokens(config: Any, prompt: int) -> int:  # noqa: ANN401
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    return DEFAULT_NEW_TOKENS if config.max_length is None else int(config.max_length) - prompt


def _choice(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return how tokens are chosen; settings of what is not done are left out."""
    if config.do_sample:
        return {
            "do_sample": True,
            "temperature": float(_or(config.temperature, 1)),
            "top_k": _or(config.top_k, DEFAULT_TOP_K),
            "top_p": float(_or(config.top_p, 1)),
        }
    if _or(config.num_beams, 1) == 1:
        return {}
    return {
        "num_beams": config.num_beams,
        "length_penalty": float(_or(config.length_penalty, 1)),
        "early_stopping": str(_or(config.early_stopping, False)).lower(),
    }
