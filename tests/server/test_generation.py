from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.generation import Generation, generation_from, overridden
from sensorium_server.stages import StageConfig

DEFAULT = Generation((1,), (2,), max_new_tokens=20)
NEEDED = {"bos_id": "1", "eos_id": "2", "max_new_tokens": "20"}
SLOTS = 8


def config(**parameters: str) -> StageConfig:
    """Return a decoder's config with these parameters besides the needed ones."""
    return StageConfig("text_decoder", Path(), {**NEEDED, **parameters})


def test_little_is_needed() -> None:
    """First and last token and a limit are enough, and mean greedy decoding."""
    assert generation_from(config(), SLOTS) == DEFAULT


def test_every_parameter_is_read() -> None:
    """What config.pbtxt says in words is what is done."""
    found = generation_from(
        config(
            prompt_ids="5,6,7",
            eos_id="2,3",
            min_new_tokens="4",
            suppress_ids="8,9",
            begin_suppress_ids="",
            repetition_penalty="1.2",
            no_repeat_ngram_size="3",
            do_sample="true",
            temperature="0.5",
            top_k="7",
            top_p="0.9",
            seed="11",
        ),
        SLOTS,
    )

    assert found == Generation(
        (5, 6, 7),
        (2, 3),
        20,
        min_new_tokens=4,
        suppress_ids=(8, 9),
        repetition_penalty=1.2,
        no_repeat_ngram_size=3,
        do_sample=True,
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        seed=11,
    )


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"eos_id": "two"}, 'eos_id = "two" is not a list of integers'),
        ({"length_penalty": "long"}, 'length_penalty = "long" is not a number'),
        ({"early_stopping": "maybe"}, 'early_stopping = "maybe" is not one of false, true, never'),
        ({"num_beams": "9"}, "num_beams = 9 is out of range, which is 1 to 8"),
        ({"temperature": "0", "top_p": "2"}, "temperature = 0.0 .*; top_p = 2.0 .*0 to 1"),
        ({"temperature": "nan"}, "temperature = nan is out of range"),
        ({"min_new_tokens": "21"}, "min_new_tokens = 21 is out of range, which is 0 to 20"),
        ({"do_sample": "true", "num_beams": "2"}, "do_sample with num_beams = 2"),
        ({"prompt_ids": ""}, "prompt_ids holds no token"),
        ({"max_new_tokens": "0"}, "max_new_tokens = 0"),
    ],
)
def test_impossible_parameters_stop_the_start(parameters: dict[str, str], told: str) -> None:
    """A config that cannot be is refused with the name, the value and the limits."""
    with pytest.raises(ConfigurationError, match=told):
        generation_from(config(**parameters), SLOTS)


def test_a_request_may_wish_otherwise() -> None:
    """What a request names replaces what the bundle says; all else stays."""
    found = overridden(DEFAULT, '{"num_beams": 4, "length_penalty": 2, "early_stopping": true}', 8)

    assert found == Generation(
        (1,), (2,), 20, num_beams=4, length_penalty=2.0, early_stopping="true"
    )
    assert overridden(DEFAULT, "{}", SLOTS) == DEFAULT


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ("beams", "'beams' is not an object in JSON"),
        ("[4]", "is not an object in JSON"),
        ("[" * 100_000, "is not an object in JSON"),
        ('{"beams": 4}', "beams is not known; known: max_new_tokens, "),
        ('{"suppress_ids": [4]}', "suppress_ids is not known"),
        ('{"num_beams": "4", "seed": true}', 'num_beams = "4" is not an integer; seed = true is'),
        ('{"early_stopping": "perhaps"}', 'early_stopping = "perhaps" is not true, false or never'),
        ('{"do_sample": 1}', "do_sample = 1 is not true or false"),
        ('{"top_p": null}', "top_p = null is not a number"),
        ('{"num_beams": 9}', "num_beams = 9 is out of range, which is 1 to 8"),
        ('{"max_new_tokens": 21}', "max_new_tokens = 21 is out of range, which is 1 to 20"),
        ('{"temperature": NaN, "do_sample": true}', "temperature = nan is out of range"),
        ('{"temperature": 0.7}', "temperature without do_sample: add do_sample: true"),
        ('{"do_sample": true, "num_beams": 2}', "do_sample with num_beams = 2; drawing needs 1"),
    ],
)
def test_impossible_wishes_are_refused(wish: str, told: str) -> None:
    """A request that cannot be granted is told what is wrong, and what would be right."""
    with pytest.raises(InvalidInputError, match=told):
        overridden(DEFAULT, wish, SLOTS)
