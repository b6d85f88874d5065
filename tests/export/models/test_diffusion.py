"""The image decoder: what its layout reads, where a zone reaches, and its two graphs."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from sensorium.contract import DIFFUSION_GRAPHS
from sensorium_export.models import ModelConfig
from sensorium_export.models.diffusion import DiffusionImageDecoder, Windows
from sensorium_export.onnx_graph import bytes_from_onnx, onnx_from_module

CONFIG = ModelConfig(vocabulary=20)
MOST_WEIGHTS = 1_250_000


@pytest.fixture(scope="module")
def decoder() -> DiffusionImageDecoder:
    """Return a random decoder, with no weight left at the zero of a fresh one."""
    torch.manual_seed(0)
    made = DiffusionImageDecoder(CONFIG).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.03)
    return made


def texts(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Return random text tokens and a mask that shows all."""
    generator = torch.Generator().manual_seed(rows)
    tokens = torch.randn(rows, length, CONFIG.width, generator=generator)
    return tokens, torch.ones(rows, length, dtype=torch.int64)


def test_shapes_are_the_contracts(decoder: DiffusionImageDecoder) -> None:
    """A layout of ten vectors, and a velocity for each pixel."""
    condition = decoder.condition(*texts(2, 7))
    velocity = decoder.denoise(torch.randn(2, 3, 64, 64), torch.tensor([0.1, 1.0]), condition)

    assert condition.shape == (2, 10, 128)
    assert velocity.shape == (2, 3, 64, 64)
    assert velocity.isfinite().all()


def test_it_is_small_enough_for_a_repository() -> None:
    """The weights stay within their budget."""
    decoder = DiffusionImageDecoder(CONFIG)

    assert sum(weight.numel() for weight in decoder.parameters()) <= MOST_WEIGHTS


def test_no_text_is_one_condition(decoder: DiffusionImageDecoder) -> None:
    """Under a mask of zeros every text gives the same condition, and no other does."""
    tokens, mask = texts(3, 5)
    mask[:2] = 0

    condition = decoder.condition(tokens, mask)

    assert torch.equal(condition[0], condition[1])
    assert not torch.allclose(condition[0], condition[2])


def test_padding_is_not_read(decoder: DiffusionImageDecoder) -> None:
    """What the mask hides changes nothing."""
    tokens, mask = texts(2, 6)
    padded = torch.cat([tokens, torch.full((2, 4, 128), 7.0)], 1)
    padded_mask = torch.cat([mask, torch.zeros(2, 4, dtype=torch.int64)], 1)

    torch.testing.assert_close(
        decoder.condition(padded, padded_mask), decoder.condition(tokens, mask)
    )


@pytest.mark.parametrize("side", [32, 64])
def test_windows_lie_around_their_zones_and_cover_the_picture(side: int) -> None:
    """Each window holds its zone's middle, all pixels are in one, and adding undoes cutting."""
    windows = Windows(side, 9)
    picture = torch.arange(3.0 * side * side).view(1, 3, side, side)

    cut = windows.cut(picture)

    assert cut.shape == (1, 9, 3, windows.side**2)
    for zone in range(9):
        row, column = (round((part + 0.5) / 3 * side) for part in divmod(zone, 3))
        inside = cut[0, zone, 0] == picture[0, 0, row, column]
        top, left = divmod(int(inside.nonzero()), windows.side)
        assert abs(top - windows.side / 2) <= side / 32
        assert abs(left - windows.side / 2) <= side / 32
    times = windows.add(windows.cut(torch.ones_like(picture)))
    assert int(times.min()) == 1
    assert int(times.max()) == 4
    torch.testing.assert_close(windows.add(cut) / times, picture)


def test_what_is_opaque_hides_the_backdrop(decoder: DiffusionImageDecoder) -> None:
    """Where no sprite is, the picture is the backdrop, which is one colour along each row."""
    torch.manual_seed(1)
    noisy, told = torch.randn(2, 3, 64, 64), torch.randn(2, 10, 128)
    backdrop = decoder.backdrop(noisy, torch.nn.functional.silu(told[:, -1]))
    assert torch.equal(backdrop, backdrop[..., :1].expand_as(backdrop))

    kept = decoder.sprites.sprite.bias.detach().clone()
    with torch.no_grad():
        decoder.sprites.sprite.bias[: kept.numel() // 2] = -1e4
        empty = decoder.picture(noisy, told)
        decoder.sprites.sprite.bias.copy_(kept)

    torch.testing.assert_close(empty, backdrop)
    assert not torch.allclose(decoder.picture(noisy, told), backdrop)


def test_noise_level_and_every_zone_matter(decoder: DiffusionImageDecoder) -> None:
    """The velocity changes with the level, and with the vector of each zone most in that zone."""
    noisy, level = torch.randn(1, 3, 64, 64), torch.tensor([0.5])
    condition = decoder.condition(*texts(1, 7))
    before = decoder.denoise(noisy, level, condition)

    assert not torch.allclose(before, decoder.denoise(noisy, level / 2, condition))
    for zone in range(9):
        changed = condition.clone()
        changed[0, zone] += torch.randn(128, generator=torch.Generator().manual_seed(zone))
        change = (decoder.denoise(noisy, level, changed) - before).abs().mean(1)[0]
        row, column = divmod(zone, 3)
        thirds = torch.stack([part.mean() for part in thirds_of(change)])
        assert int(thirds.argmax()) == 3 * row + column


def thirds_of(grid: Tensor) -> list[Tensor]:
    """Return the nine thirds of thirds of a grid in reading order."""
    return [part for band in grid.tensor_split(3, dim=0) for part in band.tensor_split(3, dim=1)]


def inputs_of(graph: str, rows: int) -> dict[str, Any]:
    """Return random inputs of a graph."""
    tokens, mask = texts(rows, 9)
    mask[-1, 4:] = 0
    if graph == "condition":
        return {"text_tokens": tokens.numpy(), "attention_mask": mask.numpy()}
    rng = np.random.default_rng(rows)
    return {
        "noisy": rng.normal(size=(rows, 3, 64, 64)).astype(np.float32),
        "noise_level": np.linspace(0.02, 1, rows, dtype=np.float32),
        "condition": rng.normal(size=(rows, 10, 128)).astype(np.float32),
    }


@pytest.mark.parametrize("graph", [*DIFFUSION_GRAPHS])
def test_graphs_agree_with_the_module(decoder: DiffusionImageDecoder, graph: str) -> None:
    """Both exported graphs compute what PyTorch computes, for any number of rows."""
    exported = onnx_from_module(
        decoder, DIFFUSION_GRAPHS[graph], CONFIG.sizes, name=graph, method=graph
    )
    session = onnxruntime.InferenceSession(
        bytes_from_onnx(exported), providers=["CPUExecutionProvider"]
    )
    for rows in (1, 3):
        inputs = inputs_of(graph, rows)
        (output,) = session.run(None, inputs)
        with torch.no_grad():
            expected = getattr(decoder, graph)(*map(torch.from_numpy, inputs.values()))
        np.testing.assert_allclose(output, expected.numpy(), atol=1e-4)
