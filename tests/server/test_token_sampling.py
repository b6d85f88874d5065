from typing import Any

import numpy as np
import pytest

from sensorium_server.generation import Generation
from sensorium_server.token_sampling import TokenSampler, warped

SCORES = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def drawn(count: int, seed: int = 0, **options: Any) -> list[int]:  # noqa: ANN401
    """Draw tokens from the same four, one after the other."""
    made = Generation((0,), (9,), 20, do_sample=True, seed=seed, **options)
    sampler = TokenSampler(made)
    return [sampler.drawn(SCORES) for _ in range(count)]


def test_the_same_seed_draws_the_same() -> None:
    """A seed fixes all draws, and another seed gives others."""
    assert drawn(20, seed=3) == drawn(20, seed=3)
    assert len({tuple(drawn(20, seed=seed)) for seed in range(10)}) == 10


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.685, 0.247, 0.062, 0.007]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.9}, [0.526, 0.316, 0.158, 0]),
        ({"top_p": 0.0}, [1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(
    options: dict[str, Any], expected: list[float]
) -> None:
    """Over many draws each token has its probability at that temperature, among those allowed."""
    counts = np.bincount(drawn(4000, **options), minlength=4) / 4000

    assert counts == pytest.approx(expected, abs=0.03)
    assert (counts > 0).tolist() == [share > 0 for share in expected]


def test_a_text_that_may_not_go_on_takes_the_first() -> None:
    """When every token is forbidden something comes out all the same, as in the library."""
    nothing = np.full(4, -np.inf, np.float32)

    assert TokenSampler(Generation((0,), (9,), 20, do_sample=True)).drawn(nothing) == 0
    assert warped(nothing, Generation((0,), (9,), 20, top_k=2)).tolist() == nothing.tolist()
