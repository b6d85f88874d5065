"""The configs of a stage on a GPU, `configs/NAME.pbtxt`; Triton's `--model-config-name` picks them.

| name | for | a network | a decoder |
|---|---|---|---|
| `gpu` | NVIDIA's container | its `model.plan`, by the native backend `tensorrt` | on the GPU |
| `gpu_wheel` | the packaged Triton | the backend `tensorrt` of `sensorium_server` | on the GPU |

They differ because the native backend concatenates ragged inputs, where ours pads them.
"""

from collections.abc import Iterator, Mapping

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from sensorium.contract import bare_name
from sensorium_export.ensembles import NETWORKS
from sensorium_export.graphs import GRAPHS
from sensorium_server.placement import NATIVE_VARIANT, PLAN_FILE, WHEEL_VARIANT

STAGES_ON_GPU = frozenset(graph.module for graph in GRAPHS)
"""The stages that have graphs; the others stay on the processor."""

VARIANTS = (NATIVE_VARIANT, WHEEL_VARIANT)
_CPU_ONLY = "precision"
"""Of a stage on a GPU the plan's record says in which precision it is."""


def variants_of(config: ModelConfig, profiles: int = 1) -> dict[str, ModelConfig]:
    """Build the configs of a stage on a GPU from its config on the processor, by variant.

    `profiles` says how many a plan of it has: the native backend uses those that it is told.
    """
    kind = bare_name(config.name)
    if kind not in STAGES_ON_GPU:
        return {}
    made = {}
    for variant in VARIANTS:
        own = ModelConfig()
        own.CopyFrom(config)
        for group in own.instance_group:
            group.kind = ModelInstanceGroup.KIND_GPU
        own.parameters.pop(_CPU_ONLY, None)
        if kind in NETWORKS:
            _put_on_tensorrt(own, profiles, native=variant == NATIVE_VARIANT)
        made[variant] = own
    return made


def _put_on_tensorrt(config: ModelConfig, profiles: int, *, native: bool) -> None:
    config.backend = "tensorrt"
    config.default_model_filename = PLAN_FILE
    if native:
        config.ClearField("parameters")
        for tensor in config.input:
            tensor.allow_ragged_batch = False
        for group in config.instance_group:
            group.profile[:] = map(str, range(profiles))
    else:
        config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = "no"


def variant_problems(
    model: str, config: ModelConfig, found: Mapping[str, ModelConfig]
) -> Iterator[str]:
    """Return where configs on a GPU differ from what the config on the processor asks for.

    Instance counts, queues and parameters may be edited: they are not looked at.
    """
    for variant, expected in variants_of(config).items():
        where = f"{model}/configs/{variant}.pbtxt"
        own = found.get(variant)
        if own is None:
            continue
        for field in ("name", "backend", "default_model_filename", "max_batch_size"):
            wanted, given = getattr(expected, field), getattr(own, field)
            if wanted != given:
                yield f'{where}: {field} "{given}", expected "{wanted}"'
        yield from _tensor_problems(where, own, expected)
        if any(group.kind != ModelInstanceGroup.KIND_GPU for group in own.instance_group):
            yield f"{where}: every instance group must be of KIND_GPU"


def _tensor_problems(where: str, own: ModelConfig, expected: ModelConfig) -> Iterator[str]:
    for side in ("input", "output"):
        found, wanted = (
            {tensor.name: tensor for tensor in getattr(one, side)} for one in (own, expected)
        )
        for name in sorted(wanted.keys() - found.keys()):
            yield f"{where}: {side} {name} is missing"
        for name in sorted(found.keys() - wanted.keys()):
            yield f"{where}: {side} {name} is not in config.pbtxt"
        for name in sorted(found.keys() & wanted.keys()):
            if found[name] != wanted[name]:
                yield f"{where}: {side} {name} is not as config.pbtxt asks for"
