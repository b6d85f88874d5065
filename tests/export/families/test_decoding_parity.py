from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.families.decoders import BOS, CACHE_SHAPE, EOS, WIDTH, SmallDecoder
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sensorium_server.decoding import Decoder, Generated
from sensorium_server.generation import Generation
from sensorium_server.token_sampling import warped

KINDS = ("blip", "gpt2", "t5", "whisper")
LONG_PROMPT = (BOS, 7, 9)
MAX_NEW_TOKENS = 12
ENDS = tuple(range(EOS, EOS + 8))
"""Several, so that texts of random weights end at many lengths."""

ROWS = 5
BEAMS = [
    {"num_beams": beams, "length_penalty": penalty, "early_stopping": stopping}
    for beams, penalty in ((3, 0.6), (4, 2.0), (4, 0.6), (3, -1.0))
    for stopping in (False, True, "never")
]
RULES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 2},
    {"suppress_tokens": list(range(5, 30))},
    {"begin_suppress_tokens": list(range(40))},
    {"min_new_tokens": 5},
    {"num_beams": 3, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
]


@cache
def made(kind: str, seed: int = 0) -> SmallDecoder:
    """Make a decoder once."""
    return SmallDecoder(kind, seed)


def memories(decoder: SmallDecoder) -> tuple[Any, Any]:
    """Return five memories, of three lengths if the decoder can tell, and their masks."""
    memory = np.random.default_rng(0).normal(size=(ROWS, 7, WIDTH)) * 2
    mask = np.ones((ROWS, 7), np.int64)
    if decoder.masks:
        mask[1, 5:] = mask[3, 3:] = 0
    return memory.astype(np.float32), mask


def expected(decoder: SmallDecoder, prompt: Sequence[int], **options: Any) -> list[list[int]]:  # noqa: ANN401
    """Generate by the library; cut at the end token."""
    texts = decoder.generate(
        prompt,
        *memories(decoder),
        **{"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False, **options},
        eos_token_id=list(ENDS),
    )
    ends = [next((at for at, one in enumerate(text) if one in ENDS), None) for text in texts]
    return [text[:end] for text, end in zip(texts, ends, strict=True)]


def asked(prompt: tuple[int, ...] = (BOS,), **options: Any) -> Generation:  # noqa: ANN401
    """Translate the library's words."""
    options = {
        {"suppress_tokens": "suppress_ids", "begin_suppress_tokens": "begin_suppress_ids"}.get(
            name, name
        ): tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
    }
    if "early_stopping" in options:
        options["early_stopping"] = str(options["early_stopping"]).lower()
    return Generation(prompt, ENDS, MAX_NEW_TOKENS, **options)


def served(
    decoder: SmallDecoder, generations: Sequence[Generation], slots: int
) -> list[Generated[int]]:
    """Generate all rows by continuous batching, as many at once as there are slots for."""
    running = Decoder[int](decoder.cross, decoder.step, CACHE_SHAPE, asked(LONG_PROMPT), slots)
    memory, mask = memories(decoder)
    waiting, ended = list(range(len(memory))), []
    while waiting or running.running:
        while waiting and generations[waiting[0]].num_beams <= running.free:
            row = waiting.pop(0)
            running.join([row], memory[[row]], mask[[row]], [generations[row]])
        ended += running.step()
    return sorted(ended, key=lambda one: one.key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [(BOS,), LONG_PROMPT])
def test_greedy_equals_generate(kind: str, prompt: tuple[int, ...]) -> None:
    """Greedy texts are those of the library, after one forced token or several."""
    found = served(made(kind), [asked(prompt)] * ROWS, slots=3)

    assert [one.tokens for one in found] == expected(made(kind), prompt)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", BEAMS, ids=str)
def test_beam_search_equals_generate(kind: str, options: dict[str, Any]) -> None:
    """Beam search finds the library's texts, whatever its length penalty and its end."""
    found = served(made(kind), [asked(LONG_PROMPT, **options)] * ROWS, slots=9)

    assert [one.tokens for one in found] == expected(made(kind), LONG_PROMPT, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", RULES, ids=str)
def test_rules_equal_generate(kind: str, options: dict[str, Any]) -> None:
    """Forbidden, penalised and postponed tokens are the library's."""
    found = served(made(kind), [asked(**options)] * ROWS, slots=9)

    assert [one.tokens for one in found] == expected(made(kind), (BOS,), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_all_kinds_share_a_run(kind: str) -> None:
    """Greedy, searched and drawn rows in one batch get what each gets alone."""
    beams = {"num_beams": 3, "length_penalty": 2.0}
    mixed = [
        asked(),
        asked(LONG_PROMPT, **beams),
        asked(do_sample=True, seed=5),
        asked(**RULES[-1]),
        asked(LONG_PROMPT, do_sample=True, top_k=9, seed=6),
    ]

    together = served(made(kind), mixed, slots=16)
    alone = served(made(kind), mixed, slots=4)

    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], rel=1e-3)
    assert together[0].tokens == expected(made(kind), (BOS,))[0]
    assert together[1].tokens == expected(made(kind), LONG_PROMPT, **beams)[1]
    assert together[3].tokens == expected(made(kind), (BOS,), **RULES[-1])[3]


@pytest.mark.parametrize("top_k", [0, 1, 7, 500])
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.95, 1.0])
def test_drawn_tokens_are_among_the_library_s(top_k: int, top_p: float) -> None:
    """Temperature, `top_k` and `top_p` leave the tokens and scores that the library leaves."""
    logits = np.random.default_rng(top_k).normal(size=(1, 100)).astype(np.float32) * 3
    expected = TemperatureLogitsWarper(0.7)(None, torch.from_numpy(logits))
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)

    found = warped(logits[0], asked(do_sample=True, temperature=0.7, top_k=top_k, top_p=top_p))

    assert np.array_equal(np.isfinite(found), np.isfinite(expected[0].numpy()))
    assert np.allclose(found, expected[0].numpy())


def test_texts_end_at_many_lengths() -> None:
    """The decoders are lively enough to prove something."""
    options: list[dict[str, Any]] = [{}, *BEAMS, *RULES]
    texts = [
        one for kind in KINDS for each in options for one in expected(made(kind), (BOS,), **each)
    ]

    assert len({len(text) for text in texts}) > 6
    assert len({tuple(text) for text in texts}) > 60
