"""Check one ensemble: every tensor is made once, is used, and fits where it goes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

TensorType = tuple[str, tuple[int, ...]]
"""Triton's name of the dtype, and the dims."""


@dataclass(frozen=True, slots=True)
class _Use:
    """One tensor of the ensemble on its way into a stage, or out to the client."""

    where: str
    name: str
    wanted: TensorType


def ensemble_problems(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> Iterator[str]:
    """Return what is wrong with an ensemble's steps, given the configs of all models."""
    made, uses, before = types_of(config.input), [], set[str]()
    for step in config.ensemble_scheduling.step:
        stage = configs.get(step.model_name)
        if stage is None:
            yield f"step {step.model_name} is not a model of this repository"
            continue
        yield from _map_problems(step, stage)
        if before and not before & set(step.input_map.values()):
            yield f"step {step.model_name} does not wait for the one before it; see decision 2"
        before = set(step.output_map.values())
        inputs, outputs = types_of(stage.input), types_of(stage.output)
        for tensor, name in sorted(step.output_map.items()):
            if name in made:
                yield f"step {step.model_name}: {name} is made twice"
            if tensor in outputs:
                made[name] = outputs[tensor]
        uses += [
            _Use(f"step {step.model_name}: its input {tensor}", name, inputs[tensor])
            for tensor, name in sorted(step.input_map.items())
            if tensor in inputs
        ]
    used = {use.name for use in uses}
    yield from (f"input {one.name} is never used" for one in config.input if one.name not in used)
    uses += [_Use("the output", name, wanted) for name, wanted in types_of(config.output).items()]
    yield from _flow_problems(made, uses)


def types_of(tensors: Iterable[Any]) -> dict[str, TensorType]:
    """Return dtype and dims of a config's inputs or outputs, by name."""
    return {one.name: (DataType.Name(one.data_type), tuple(one.dims)) for one in tensors}


def type_text(kind: TensorType) -> str:
    """Write a type as messages show it."""
    dtype, dims = kind
    return f"{dtype.removeprefix('TYPE_')} {list(dims)}"


def _map_problems(step: Any, stage: ModelConfig) -> Iterator[str]:  # noqa: ANN401 - untyped protobuf
    inputs, outputs = types_of(stage.input), types_of(stage.output)
    optional = {one.name for one in stage.input if one.optional}
    for tensor in sorted(inputs.keys() - step.input_map.keys() - optional):
        yield f"step {step.model_name}: its input {tensor} is not mapped"
    for tensor in sorted(step.input_map.keys() - inputs.keys()):
        yield f"step {step.model_name}: it has no input {tensor}"
    for tensor in sorted(step.output_map.keys() - outputs.keys()):
        yield f"step {step.model_name}: it has no output {tensor}"


def _flow_problems(made: Mapping[str, TensorType], uses: Iterable[_Use]) -> Iterator[str]:
    for use in uses:
        if use.name not in made:
            yield f"{use.where} wants {use.name}, which no step makes"
        elif not _fits(made[use.name], use.wanted):
            yield (
                f"{use.where} wants {use.name} as {type_text(use.wanted)}, "
                f"it is made as {type_text(made[use.name])}"
            )


def _fits(made: TensorType, wanted: TensorType) -> bool:
    """Whether a tensor may go where another type is wanted: -1 takes any length."""
    return (
        made[0] == wanted[0]
        and len(made[1]) == len(wanted[1])
        and all(want in {-1, have} for have, want in zip(made[1], wanted[1], strict=True))
    )
