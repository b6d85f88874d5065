from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.server import toy
from tests.server.host_device import HostDevice, OnnxEngine

from sensorium.errors import ConfigurationError
from sensorium_server.decoder_backend import decoder_from, device_decoder, engine_decoder
from sensorium_server.decoding import Decoder, Generated
from sensorium_server.device_slots import BoundGraph
from sensorium_server.generation import Generation
from sensorium_server.gpu import this_gpu
from sensorium_server.onnx_session import OnnxGraph
from sensorium_server.stages import StageConfig

PARAMETERS = {"bos_id": "2", "eos_id": "3", "max_new_tokens": "12", "slots": "4"}
GRAPHS = ("cross", "step")
HOST, BOUND, ENGINE = WHERE = ("host", "bound", "engine")
"""On the host; on a device by ONNX Runtime, whose inputs are bound; on a device by engines."""


def decoder(repository: Path, slots: int = 4, where: str = HOST) -> Decoder[Any]:
    """Return the toy's decoder, with its cache on a device if wished."""
    parameters = {**PARAMETERS, "slots": str(slots)}
    config = StageConfig("text_decoder", repository / "text_decoder/1", parameters)
    paths = [config.directory / f"{name}.onnx" for name in GRAPHS]
    if where == HOST:
        return decoder_from(config)
    if where == ENGINE:
        sizes = {"batch": (1, 8), "past": (0, 11), "memory": (1, 12)}
        engines = [OnnxEngine(one, [sizes]) for one in paths]
        return engine_decoder(config, engines[0], engines[1], HostDevice())
    device = HostDevice()
    cross, step = (BoundGraph(OnnxGraph(one).session, device, "cpu") for one in paths)
    return device_decoder(config, cross, step, (2, 1, 8), device)


def memory(seed: int, length: int) -> tuple[Any, Any]:
    """Return a memory and its mask, which hides the last element when there are more."""
    made = np.random.default_rng(seed).normal(size=(length, 8)).astype(np.float32)
    mask = np.ones(length, np.int64)
    mask[1:] = np.arange(1, length) < length - 1
    return made, mask


def reference(repository: Path, made: Any, mask: Any) -> tuple[list[int], float]:  # noqa: ANN401
    """Generate one row alone, as plainly as can be."""
    cross = OnnxGraph(repository / "text_decoder/1/cross.onnx")
    step = OnnxGraph(repository / "text_decoder/1/step.onnx")
    keys = cross.run(["cross"], {"memory": made[None]})["cross"]
    past = np.zeros((1, 2, 1, 0, 8), np.float32)
    tokens, log_probability = [toy.BOS], 0.0
    while len(tokens) <= toy.MAX_NEW_TOKENS:
        out = step.run(
            ["logits", "present"],
            {
                "token_id": np.array(tokens[-1:]),
                "position": np.array([len(tokens) - 1]),
                "past": past,
                "cross": keys,
                "memory_mask": mask[None],
            },
        )
        past = np.concatenate([past, out["present"][:, :, :, None]], axis=3)
        logits = out["logits"][0].astype(np.float64)
        tokens.append(int(logits.argmax()))
        log_probability += float(logits.max() - np.log(np.exp(logits).sum()))
        if tokens[-1] == toy.EOS:
            return tokens[1:-1], float(np.exp(log_probability))
    return tokens[1:], float(np.exp(log_probability))


def finish(running: Decoder[Any]) -> dict[Any, Generated[Any]]:
    """Step until no row runs; return all results."""
    ended: dict[Any, Generated[Any]] = {}
    while running.running:
        ended |= {result.key: result for result in running.step()}
    return ended


def test_one_row_equals_the_reference(toy_repository: Path) -> None:
    """A row alone gets the tokens and the probability of the plain loop."""
    made, mask = memory(0, 5)
    alone = decoder(toy_repository)

    alone.join(["row"], [made], [mask])

    result = finish(alone)["row"]
    tokens, score = reference(toy_repository, made, mask)
    assert result.tokens == tokens
    assert result.score == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("where", WHERE)
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9)), min_size=1, max_size=9),
    pace=st.integers(1, 4),
)
def test_company_changes_nothing(
    toy_repository: Path, rows: list[tuple[int, int]], pace: int, where: str
) -> None:
    """Rows that join and leave at different steps get what each would get alone."""
    running = decoder(toy_repository, slots=3, where=where)
    waiting = {index: memory(seed, length) for index, (seed, length) in enumerate(rows)}
    expected = {index: reference(toy_repository, *row) for index, row in waiting.items()}
    ended: dict[Any, Generated[Any]] = {}
    while waiting or running.running:
        joining = list(waiting)[: min(pace, running.free)]
        if joining:
            pairs = [waiting.pop(index) for index in joining]
            running.join(joining, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
        ended |= {result.key: result for result in running.step()}

    assert {index: result.tokens for index, result in ended.items()} == {
        index: tokens for index, (tokens, _) in expected.items()
    }
    for index, (_, score) in expected.items():
        assert ended[index].score == pytest.approx(score, rel=1e-3)


def test_beams_on_a_device(toy_repository: Path) -> None:
    """Beams that follow one another in a cache on a device find what they find on the host."""
    wishes = [Generation((2,), (3,), 9, num_beams=beams) for beams in (3, 1, 2)]
    pairs = [memory(seed, length) for seed, length in ((1, 4), (2, 7), (3, 2))]
    found = []
    for where in WHERE:
        running = decoder(toy_repository, slots=8, where=where)
        running.join([0], [pairs[0][0]], [pairs[0][1]], wishes[:1])
        first = running.step()
        rest = pairs[1:]
        running.join([1, 2], [one[0] for one in rest], [one[1] for one in rest], wishes[1:])
        found.append({one.key: one for one in first} | finish(running))

    host = found[0]
    for device in found[1:]:
        assert {key: one.tokens for key, one in device.items()} == {
            key: one.tokens for key, one in host.items()
        }
        assert all(device[key].score == pytest.approx(host[key].score, rel=1e-4) for key in host)


def test_engine_that_is_too_small_is_refused(toy_repository: Path) -> None:
    """What slots and tokens need is said beside what the plan takes."""
    config = StageConfig("text_decoder", toy_repository / "text_decoder/1", PARAMETERS)
    sizes = {"batch": (1, 4), "past": (0, 9), "memory": (1, 12)}
    cross, step = (OnnxEngine(config.directory / f"{one}.onnx", [sizes]) for one in GRAPHS)

    with pytest.raises(ConfigurationError, match=r"4 rows of 9 tokens, and 4 slots of 11 are"):
        engine_decoder(config, cross, step, HostDevice())


@pytest.mark.skipif(this_gpu() is not None, reason="this machine has a GPU")
def test_without_plans_the_onnx_files_serve(toy_repository: Path) -> None:
    """And it is told why."""
    told = list[str]()
    config = StageConfig("text_decoder", toy_repository / "text_decoder/1", PARAMETERS)

    running: Decoder[Any] = decoder_from(config, 0, told.append)

    made, mask = memory(5, 3)
    running.join(["row"], [made], [mask])
    assert finish(running)["row"].tokens == reference(toy_repository, made, mask)[0]
    assert len(told) == 1
    assert told[0].startswith("text_decoder serves its ONNX files: ")


def test_numbers_that_are_none_leave_the_device(toy_repository: Path) -> None:
    """A row with NaN ends with a NaN score, and the next one in its slot is well."""
    running = decoder(toy_repository, slots=1, where=BOUND)
    made, mask = memory(5, 3)
    running.join(["sick"], [made * np.nan], [mask])
    (result,) = running.step()
    running.join(["well"], [made], [mask])

    assert np.isnan(result.score)
    assert finish(running)["well"].tokens == reference(toy_repository, made, mask)[0]


def test_toy_answers_differ(toy_repository: Path) -> None:
    """The toy decoder is lively enough to prove something: lengths and words differ."""
    answers = {tuple(reference(toy_repository, *memory(seed, 4))[0]) for seed in range(20)}

    assert len(answers) > 10
    assert len({len(answer) for answer in answers}) > 3


def test_discarded_rows_leave(toy_repository: Path) -> None:
    """A row can be taken out, and the others go on as if it had never been there."""
    running = decoder(toy_repository)
    pairs = [memory(seed, 4) for seed in range(3)]
    running.join([0, 1, 2], [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    running.step()

    running.discard({0})

    assert sorted(running.keys) == [1, 2]
    assert (running.running, running.free, running.slots) == (2, 2, 4)
    ended = finish(running)
    assert all(ended[key].tokens == reference(toy_repository, *pairs[key])[0] for key in (1, 2))


def test_numbers_that_are_none_stay_with_their_row() -> None:
    """A row with NaN ends with a NaN score, and leaves nothing behind for the next in its slot."""
    sick = {"now": True}
    seen: list[float] = []

    def cross(batch: Any) -> Any:  # noqa: ANN401
        made = np.zeros((len(batch), 2, 1, batch.shape[1], 1), np.float32)
        made[:] = np.nan if sick["now"] else 1
        return made

    def step(token: Any, _position: Any, past: Any, keys: Any, _mask: Any) -> Any:  # noqa: ANN401
        seen.append(float(past.sum() + keys.sum()))
        logits = np.tile(np.array([0, 1], np.float32), (len(token), 1)) * keys.max()
        return logits, np.full((len(token), 2, 1, 1), keys.max(), np.float32)

    running = Decoder[str](cross, step, (2, 1, 1), Generation((0,), (1,), 3), 2)
    running.join(["sick"], [np.ones((2, 1))], [np.ones(2)])
    (result,) = running.step()
    sick["now"] = False
    running.join(["well"], [np.ones((1, 1))], [np.ones(1)])
    (healthy,) = running.step()

    assert np.isnan(result.score)
    assert np.isfinite(seen[-1])
    assert healthy.tokens == []
    assert 0 < healthy.score < 1
