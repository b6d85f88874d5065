from typing import Any

import numpy as np
import pytest

from sensorium_server.generation import Generation
from sensorium_server.token_rules import TokenRules

BANNED = -np.inf


def applied(said: list[int], **options: Any) -> list[float]:  # noqa: ANN401 - fields of all kinds
    """Return the scores of six tokens, which are 1, -1, 1, -1 …, after a text."""
    rules = TokenRules(Generation((0,), (5,), 20, **options))
    scores: list[float] = rules.applied(np.array([1, -1] * 3, np.float32), said).tolist()
    return scores


@pytest.mark.parametrize(
    ("options", "said", "expected"),
    [
        ({"suppress_ids": (1, 99, -1)}, [2], [1, BANNED, 1, -1, 1, -1]),
        ({"begin_suppress_ids": (2,)}, [], [1, -1, BANNED, -1, 1, -1]),
        ({"begin_suppress_ids": (2,)}, [3], [1, -1, 1, -1, 1, -1]),
        ({"min_new_tokens": 2}, [3], [1, -1, 1, -1, 1, BANNED]),
        ({"min_new_tokens": 2}, [3, 3], [1, -1, 1, -1, 1, -1]),
        ({"repetition_penalty": 2.0}, [3, 3], [0.5, -1, 1, -2, 1, -1]),
        ({"no_repeat_ngram_size": 2}, [1, 0], [1, BANNED, 1, -1, 1, -1]),
        ({"no_repeat_ngram_size": 1}, [2], [BANNED, -1, BANNED, -1, 1, -1]),
        ({"no_repeat_ngram_size": 3}, [1], [1, -1, 1, -1, 1, -1]),
    ],
)
def test_rules(options: dict[str, Any], said: list[int], expected: list[float]) -> None:
    """Each rule bans or penalises its tokens; the prompt counts as said, foreign ids do not."""
    assert applied(said, **options) == expected


def test_no_rules_cost_nothing() -> None:
    """Where nothing is forbidden the scores are not even copied."""
    rules = TokenRules(Generation((0,), (5,), 20))
    scores = np.ones(6, np.float32)

    assert not rules.active
    assert rules.applied(scores, [1]) is scores


def test_the_graph_s_scores_are_left_alone() -> None:
    """Rules work on a copy, for others read the same scores."""
    scores = np.ones(6, np.float32)

    TokenRules(Generation((0,), (5,), 20, suppress_ids=(1,))).applied(scores, [])

    assert scores.tolist() == [1] * 6
