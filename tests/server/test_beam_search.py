import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sensorium_server.decoding import Decoder, Generated
from sensorium_server.generation import Generation

EOS = 1
WORDS = 5
TOKENS = 4


class Grammar:
    """Graphs whose next token depends on memory and on all earlier tokens, through the past."""

    def cross(self, memory: Any) -> Any:  # noqa: ANN401 - arrays
        """Keep the memory."""
        return memory[:, None, None].repeat(2, axis=1)

    def step(self, token: Any, position: Any, past: Any, cross: Any, mask: Any) -> Any:  # noqa: ANN401
        """Hash what was said into logits; the present is what this token adds."""
        own = (token + 1) * 1.7 + position * 0.3
        held = np.arange(past.shape[3]) < position[:, None]
        said = (past[:, 0, 0, :, 0] * held).sum(axis=1) * 0.9 + own
        seen = (cross[:, 0, 0, :, 0] * mask).sum(axis=1)
        words = np.arange(WORDS) + 1
        logits = 2 * np.sin(np.outer(said, words) + np.outer(seen, words**2))
        present = np.broadcast_to(own[:, None, None, None], (len(token), 2, 1, 1))
        return logits.astype(np.float32), present.astype(np.float32)


def generated(
    *rows: tuple[float, Generation], slots: int = 16, most: int = TOKENS
) -> dict[int, Generated[int]]:
    """Generate rows, each with a memory of one number, as soon as there are slots."""
    graphs = Grammar()
    decoder = Decoder[int](
        graphs.cross, graphs.step, (2, 1, 1), Generation((0, 0), (EOS,), most), slots
    )
    waiting = dict(enumerate(rows))
    ended: dict[int, Generated[int]] = {}
    while waiting or decoder.running:
        while waiting and next(iter(waiting.values()))[1].num_beams <= decoder.free:
            key = next(iter(waiting))
            number, generation = waiting.pop(key)
            memory = np.full((1, 1), number, np.float32)
            decoder.join([key], [memory], [np.ones(1, np.int64)], [generation])
        ended |= {one.key: one for one in decoder.step()}
    return ended


def searched(beams: int, **options: Any) -> Generation:  # noqa: ANN401 - fields of all kinds
    """Return a beam search over at most four tokens."""
    return Generation((0,), (EOS,), TOKENS, num_beams=beams, **options)


def likelihood(number: float, tokens: tuple[int, ...]) -> float:
    """Return the logarithm of a text's probability, token by token."""
    graphs = Grammar()
    cross = np.full((1, 2, 1, 1, 1), number, np.float32)
    past = np.zeros((1, 2, 1, 0, 1), np.float32)
    total = 0.0
    for at, (fed, token) in enumerate(itertools.pairwise((0, *tokens))):
        logits, present = graphs.step(
            np.array([fed]), np.array([at]), past, cross, np.ones((1, 1), np.int64)
        )
        past = np.concatenate([past, present[:, :, :, None]], axis=3)
        total += float(logits[0, token] - np.log(np.exp(logits[0].astype(np.float64)).sum()))
    return total


def best_of_all(number: float, penalty: float) -> tuple[int, ...]:
    """Try every text there is."""
    texts = [
        text
        for length in range(1, TOKENS + 1)
        for text in itertools.product(range(WORDS), repeat=length)
        if EOS not in text[:-1] and (text[-1] == EOS or length == TOKENS)
    ]
    return max(texts, key=lambda text: likelihood(number, text) / len(text) ** penalty)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 2.0])
def test_enough_beams_find_the_best_text(penalty: float) -> None:
    """With a beam for every text and no early end, the search is exhaustive."""
    for number in np.linspace(0, 3, 9).tolist():
        wide = searched(700, length_penalty=penalty, early_stopping="never")
        (found,) = generated((number, wide), slots=700).values()
        best = best_of_all(number, penalty)

        assert tuple(found.tokens) == (best[:-1] if best[-1] == EOS else best)
        assert np.log(found.score) == pytest.approx(likelihood(number, best), abs=1e-4)


@pytest.mark.parametrize("stopping", ["false", "true", "never"])
def test_company_changes_nothing(stopping: str) -> None:
    """Greedy, searched and drawn rows that share steps get what each gets alone."""
    kinds: list[Callable[[], Generation]] = [
        lambda: searched(3, early_stopping=stopping),
        lambda: searched(1),
        lambda: searched(4, early_stopping=stopping, length_penalty=2.0),
        lambda: searched(1, do_sample=True, seed=4),
        lambda: Generation((0, 3), (EOS,), TOKENS, num_beams=2),
    ]
    rows = [(index * 0.37, kind()) for index, kind in enumerate(kinds * 4)]
    alone = {index: generated(row)[0] for index, row in enumerate(rows)}

    for slots in (4, 7, 16):
        together = generated(*rows, slots=slots)

        assert {index: one.tokens for index, one in together.items()} == {
            index: one.tokens for index, one in alone.items()
        }
        for index, one in together.items():
            assert one.score == pytest.approx(alone[index].score, rel=1e-4)
    assert len({tuple(one.tokens) for one in alone.values()}) > 8


def test_a_smaller_limit_ends_a_text() -> None:
    """A row may ask for fewer tokens than the bundle allows."""
    found = generated((0.5, Generation((0,), (), 2, num_beams=2)), (0.5, Generation((0,), (), 3)))

    assert [len(found[key].tokens) for key in (0, 1)] == [2, 3]


def test_a_text_that_may_say_nothing_is_empty() -> None:
    """When every token is forbidden the search ends with an empty text of no probability."""
    found = generated((0.5, searched(2, suppress_ids=tuple(range(WORDS)))))[0]

    assert (found.tokens, found.score) == ([], 0.0)


def test_numbers_that_are_none_stay_with_their_text() -> None:
    """A searched row with NaN ends with a NaN score; its neighbours are not touched."""
    rows = [(np.nan, searched(3)), (0.4, searched(3)), (0.4, searched(1))]

    found = generated(*rows)

    assert np.isnan(found[0].score)
    assert found[1].tokens == generated(rows[1])[0].tokens
    assert found[2].tokens == generated(rows[2])[0].tokens


def test_discarded_beams_leave() -> None:
    """A searched row can be taken out with all its slots, and the others go on."""
    graphs = Grammar()
    generation = searched(3)
    decoder = Decoder[str](graphs.cross, graphs.step, (2, 1, 1), generation, 8)
    memories = [np.full((1, 1), number, np.float32) for number in (0.1, 0.2)]
    decoder.join(["gone", "stays"], memories, [np.ones(1, np.int64)] * 2)
    decoder.step()

    decoder.discard({"gone"})

    assert (decoder.keys, decoder.running, decoder.free) == (["stays"], 3, 5)
    ended: list[Generated[str]] = []
    while decoder.running:
        ended += decoder.step()
    assert ended[0].tokens == generated((0.2, generation))[0].tokens
