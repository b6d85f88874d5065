from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sensorium.errors import InvalidInputError
from sensorium_server.batching import Batcher

BATCHER = Batcher(
    inputs={"ids": ("batch", "sequence"), "mask": ("batch", "sequence")},
    outputs={"tokens": ("batch", "sequence", 2), "vector": ("batch", 2)},
    buckets={"sequence": (4, 8)},
    pad_values={"ids": 9},
)


def request(rows: int, length: int, value: int = 1) -> dict[str, Any]:
    """Return a request of equal rows."""
    return {
        "ids": np.full((rows, length), value, np.int64),
        "mask": np.ones((rows, length), np.int64),
    }


def test_unequal_requests_share_a_batch() -> None:
    """Requests are padded to the smallest bucket that holds all, each input by its value."""
    requests = [request(1, 2), request(2, 5)]
    sizes = [BATCHER.sizes(each) for each in requests]

    batch = BATCHER.join(requests, sizes)

    assert BATCHER.groups(sizes) == [[0, 1]]
    assert_array_equal(batch["ids"][:, :5], [[1, 1, 9, 9, 9], [1] * 5, [1] * 5])
    assert_array_equal(batch["mask"].sum(axis=1), [2, 5, 5])
    assert batch["ids"].shape == (3, 8)


def test_lone_request_that_fits_is_not_copied() -> None:
    """A request that fills its bucket goes on as it is."""
    lone = request(1, 4)

    batch = BATCHER.join([lone], [BATCHER.sizes(lone)])

    assert batch["ids"] is lone["ids"]


def test_beyond_the_largest_bucket() -> None:
    """A batch longer than every bucket is as long as its longest request."""
    assert BATCHER.padded_sizes([{"sequence": 11}, {"sequence": 3}]) == {"sequence": 11}


def test_outputs_of_their_own_length_are_cut_by_their_mask() -> None:
    """An axis that outputs alone have is cut to what its mask shows in each request's rows."""
    batcher = Batcher(
        inputs={"samples": ("batch", "samples")},
        outputs={"logits": ("batch", "frames", 2), "shown": ("batch", "frames")},
        buckets={"samples": (8,)},
        masks={"frames": "shown"},
    )
    results = {
        "logits": np.zeros((3, 4, 2), np.float32),
        "shown": np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]),
    }

    lone, pair = batcher.split(results, [1, 2], [{"samples": 2}, {"samples": 6}])

    assert (lone["logits"].shape, pair["logits"].shape) == ((1, 1, 2), (2, 3, 2))
    assert (lone["shown"].tolist(), pair["shown"].tolist()) == ([[1]], [[1, 1, 0], [1, 1, 1]])


def test_axis_without_buckets_is_never_padded() -> None:
    """Along an axis without buckets only equal requests share a batch."""
    rigid = Batcher({"x": ("batch", "frames")}, {"y": ("batch",)})

    assert rigid.groups([{"frames": 3}, {"frames": 4}, {"frames": 3}]) == [[0, 2], [1]]


@given(lengths=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), min_size=1, max_size=6))
def test_split_undoes_join(lengths: list[tuple[int, int]]) -> None:
    """Each request gets back its own rows and lengths, whoever shared its batch."""
    requests = [request(rows, size, value) for value, (rows, size) in enumerate(lengths)]
    sizes = [BATCHER.sizes(each) for each in requests]
    batch = BATCHER.join(requests, sizes)
    results = {
        "tokens": np.stack([batch["ids"], batch["ids"]], axis=-1),
        "vector": batch["ids"][:, :1] * np.ones(2),
    }

    parts = BATCHER.split(results, [rows for rows, _ in lengths], sizes)

    for part, each in zip(parts, requests, strict=True):
        assert_array_equal(part["tokens"], np.stack([each["ids"], each["ids"]], axis=-1))
        assert_array_equal(part["vector"], each["ids"][:, :1] * np.ones(2))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"ids": np.ones((1, 3)), "mask": np.ones((1, 2))}, "mask is 2 long along sequence.* 3"),
        ({"ids": np.ones((1, 3)), "mask": np.ones((2, 3))}, "batch sizes differ: ids 1, mask 2"),
        ({"ids": np.ones((1, 0)), "mask": np.ones((1, 0))}, r"ids is empty: its shape is \[1, 0\]"),
    ],
    ids=["length", "rows", "empty"],
)
def test_inconsistent_inputs(tensors: dict[str, Any], message: str) -> None:
    """Inputs that do not fit together are refused with the names and the sizes."""
    with pytest.raises(InvalidInputError, match=message):
        BATCHER.sizes(tensors)
