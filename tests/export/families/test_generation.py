import dataclasses
from typing import Any

import pytest
from tests.export.families.decoders import BOS, EOS
from transformers import GenerationConfig

from sensorium.errors import ConfigurationError
from sensorium_export.families.generation import generation_from
from sensorium_export.model_config import config_from_pbtxt, model_configs
from sensorium_export.pbtxt import pbtxt_from_config
from sensorium_export.recipe import GenerationRecipe, Recipe, TextRecipe
from sensorium_export.stage_parameters import parameters_of
from sensorium_server import generation as served
from sensorium_server.stages import StageConfig


def settings(**given: Any) -> GenerationConfig:  # noqa: ANN401 - transformers is untyped
    """Return settings of a checkpoint that starts and ends its texts as others do."""
    given = {"bos_token_id": BOS, "eos_token_id": EOS, **given}
    return GenerationConfig(**given)  # type: ignore[no-untyped-call]


def told(recipe: Recipe, config: GenerationConfig, **given: Any) -> served.Generation:  # noqa: ANN401
    """Return what the server reads in the config that export writes for these settings."""
    text = TextRecipe(max_tokens=64, pad_id=0, unk_id=0, **generation_from(config, **given))
    made = dataclasses.replace(recipe, text=text)
    written = config_from_pbtxt(pbtxt_from_config(model_configs(made)["text_decoder"]), "it")
    parameters = {key: value.string_value for key, value in written.parameters.items()}
    assert parameters == parameters_of("text_decoder", made)
    stage = StageConfig("text_decoder", None, parameters)  # type: ignore[arg-type]
    return served.generation_from(stage, int(parameters["slots"]))


def test_nothing_said_is_greedy(recipe: Recipe) -> None:
    """Settings that name the end alone are decoded greedily, twenty tokens at most."""
    assert told(recipe, settings()) == served.Generation((BOS,), (EOS,), 20)


def test_greedy_writes_nothing_new(recipe: Recipe) -> None:
    """A bundle that is decoded greedily has no parameter of the other ways."""
    text = TextRecipe(64, 0, 0, **generation_from(settings()))
    parameters = parameters_of("text_decoder", dataclasses.replace(recipe, text=text))

    assert parameters.keys() == parameters_of("text_decoder", recipe).keys()


def test_beams_and_rules_reach_the_server(recipe: Recipe) -> None:
    """All that a captioning checkpoint may say is served as it says it."""
    config = settings(
        decoder_start_token_id=7,
        eos_token_id=[EOS, 5],
        max_length=30,
        min_length=9,
        num_beams=4,
        length_penalty=0.6,
        early_stopping=True,
        repetition_penalty=1.5,
        no_repeat_ngram_size=3,
        suppress_tokens=[1, 2],
        begin_suppress_tokens=[8, -1],
        temperature=0.5,
    )

    assert told(recipe, config, prompt_ids=(7, 8, 9)) == served.Generation(
        (7, 8, 9),
        (EOS, 5),
        max_new_tokens=27,
        min_new_tokens=6,
        suppress_ids=(1, 2),
        begin_suppress_ids=(8,),
        repetition_penalty=1.5,
        no_repeat_ngram_size=3,
        num_beams=4,
        length_penalty=0.6,
        early_stopping="true",
    )


def test_drawing_reaches_the_server(recipe: Recipe) -> None:
    """Drawn tokens are drawn as the library draws them, its silent `top_k` included."""
    config = settings(do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=5)

    assert told(recipe, config) == served.Generation(
        (BOS,), (EOS,), 5, do_sample=True, temperature=0.7, top_k=50, top_p=0.9
    )


def test_forced_tokens_become_the_prompt() -> None:
    """Tokens that Whisper forces follow the first one."""
    config = settings(decoder_start_token_id=3, forced_decoder_ids=[[1, 40], [2, 41]])
    made = generation_from(config, slots=8)

    assert made["generation"] == GenerationRecipe(prompt_ids=(3, 40, 41), slots=8)
    assert made["bos_id"] == 3


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"num_return_sequences": 2, "num_beams": 2}, "num_return_sequences = 2"),
        ({"forced_eos_token_id": 2, "bad_words_ids": [[3]]}, "bad_words_ids.*forced_eos_token_id"),
        ({"penalty_alpha": 0.6, "num_beam_groups": 2}, "penalty_alpha = 0.6; num_beam_groups = 2"),
        ({"do_sample": True, "typical_p": 0.5, "num_beams": 3}, "typical_p.*num_beams = 3"),
        ({"num_beams": 65}, "num_beams = 65 with 64 slots"),
        ({"eos_token_id": None}, "eos_token_id is missing"),
        ({"bos_token_id": None}, "bos_token_id"),
        ({"forced_decoder_ids": [[2, 40]]}, "with gaps"),
        ({"forced_decoder_ids": [[1, None], [2, 5]]}, "with gaps"),
        ({"language": "en", "task": "transcribe"}, "language and task without prompt_ids"),
        ({"max_length": 1}, "max_length = 1 leaves no token"),
    ],
)
def test_what_cannot_be_served_is_named(given: dict[str, Any], named: str) -> None:
    """A checkpoint that wants something else is refused, with every setting named."""
    with pytest.raises(ConfigurationError, match=named):
        generation_from(settings(**given))


def test_idle_settings_are_let_pass() -> None:
    """What has no effect does not stop an export."""
    config = settings(typical_p=0.5, num_beam_groups=1, diversity_penalty=0.0, length_penalty=2.0)

    assert generation_from(config)["generation"] == GenerationRecipe()
