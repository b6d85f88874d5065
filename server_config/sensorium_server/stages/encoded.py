"""What an encoder put out, as postprocessing takes it: zero where masked, finite elsewhere."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.contract import TensorSpec
from sensorium.errors import ServerError
from sensorium_server.stages import Tensors


def shown(inputs: Tensors, spec: TensorSpec, mask: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return a tensor whose masked positions are 0, whatever they held.

    Args:
        inputs: The request's tensors.
        spec: Which of them.
        mask: Its leading axes; 0 or False hides a position.

    Raises:
        ServerError: a position that is not masked holds NaN or infinity.
    """
    values = inputs[spec.name]
    if mask is not None:
        visible = mask.astype(bool).reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
        values = np.where(visible, values, values.dtype.type(0))
    if not np.isfinite(values).all():
        raise ServerError(f"the encoder put out NaN or infinity in {spec.name}; see its input")
    return values
