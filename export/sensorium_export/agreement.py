"""How often answers agree, where numbers may drift: a share for each kind of answer, 1 at best.

- `tokens`: of a text's words those that stand at the same place, of the longer text's.
- `top1`: inputs whose best label is the same.
- `rank`: of the `NEIGHBOURS` nearest inputs of an input, by the cosine of their embeddings, those
  that are the same: what a search would find.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.contract import EMBEDDING, EVENT_LABELS, IMAGE, START_S

NEIGHBOURS = 10

Outputs = Mapping[str, NDArray[Any]]
Pairs = Sequence[tuple[Outputs, Outputs]]


def agreement_of(expected: Sequence[Outputs], actual: Sequence[object]) -> dict[str, float]:
    """Return the shares that apply to these outputs, of the inputs that were answered."""
    pairs: Pairs = [
        (wanted, found)
        for wanted, found in zip(expected, actual, strict=True)
        if isinstance(found, Mapping) and found.keys() >= wanted.keys()
    ]
    if not pairs:
        return {}
    names = pairs[0][0].keys()
    texts = [name for name in names - {IMAGE.name} if pairs[0][0][name].dtype == object]
    if EVENT_LABELS.name in texts:
        return {} if START_S.name in names else {"top1": _top1(pairs)}
    if texts:
        return {"tokens": _tokens(pairs, texts[0])}
    if EMBEDDING.name in names and len(pairs) > 2:  # noqa: PLR2004 - else there is no order
        return {"rank": _rank(pairs)}
    return {}


def _top1(pairs: Pairs) -> float:
    name = EVENT_LABELS.name
    return _mean([wanted[name][0, 0] == found[name][0, 0] for wanted, found in pairs])


def _tokens(pairs: Pairs, name: str) -> float:
    shares = []
    for wanted, found in pairs:
        one, other = (_words(outputs[name]) for outputs in (wanted, found))
        same = sum(a == b for a, b in zip(one, other, strict=False))
        shares.append(same / max(len(one), len(other), 1) if one != other else 1.0)
    return _mean(shares)


def _words(array: NDArray[Any]) -> list[str]:
    text = array.ravel()[0]
    return (text.decode() if isinstance(text, bytes) else str(text)).split()


def _rank(pairs: Pairs) -> float:
    wanted, found = (
        _neighbours(np.concatenate([pair[side][EMBEDDING.name] for pair in pairs]))
        for side in (0, 1)
    )
    return _mean(
        [len(set(one) & set(other)) / len(one) for one, other in zip(wanted, found, strict=True)]
    )


def _neighbours(embeddings: NDArray[Any]) -> list[list[int]]:
    """Return the nearest other rows of each row, nearest first."""
    rows = embeddings.astype(np.float64)
    cosines = rows @ rows.T / np.outer(*[np.linalg.norm(rows, axis=1)] * 2)
    np.fill_diagonal(cosines, -np.inf)
    most = min(NEIGHBOURS, len(rows) - 1)
    nearest: list[list[int]] = np.argsort(-cosines, axis=1, kind="stable")[:, :most].tolist()
    return nearest


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
