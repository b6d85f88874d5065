"""A builder of engines for the toy bundle: ONNX Runtime's optimised graphs, or what goes wrong.

    python toy_builder.py MODE REPOSITORY BUNDLE

It does what `sensorium compile` does, without PyTorch and in a second. Modes: `good`; `unproven`,
where parity fails; `mixed`, where fusion is no graph, and the text encoder puts out NaN for a text
with the word of the number 13, "red"; `partly`, where all but fusion fail; `fail`; `hang`; `full`,
which writes more than fits.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sensorium_server.engine_record import EngineParity, EngineRecord, write_records
from sensorium_server.manifest import digest
from sensorium_server.swap.device import processor, product_version

UNLUCKY = 13


def optimised(path: Path) -> bytes:
    """Return a graph as ONNX Runtime saves it."""
    target = path.with_suffix(".optimised")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    data = target.read_bytes()
    target.unlink()
    return data


def unlucky(path: Path) -> bytes:
    """Return a graph that divides 0 by 0 in every number when its first input holds a 13."""
    model = onnx.load(path)
    graph = model.graph
    kind = helper.tensor_dtype_to_np_dtype(graph.input[0].type.tensor_type.elem_type)
    graph.initializer.append(numpy_helper.from_array(np.array(UNLUCKY, kind), "unlucky"))
    floats = [
        output.name
        for output in graph.output
        if output.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}_sound" if name in floats else name for name in names]
    graph.node.extend(
        [
            helper.make_node("Equal", [graph.input[0].name, "unlucky"], ["is_unlucky"]),
            helper.make_node("Cast", ["is_unlucky"], ["unluckiness"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["unluckiness"], ["worst"], keepdims=0),
            helper.make_node("Constant", [], ["one"], value_float=1.0),
            helper.make_node("Sub", ["one", "worst"], ["luck"]),
            helper.make_node("Div", ["luck", "luck"], ["factor"]),
            *(helper.make_node("Mul", [f"{name}_sound", "factor"], [name]) for name in floats),
        ]
    )
    return bytes(model.SerializeToString())


MIXED = {"fusion": lambda _path: b"no graph", "text_encoder": unlucky}


def main() -> None:
    """Build, or go wrong as told."""
    mode, repository, bundle = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if mode == "fail":
        sys.exit("error: node relu_3 (Relu) is not known")
    if mode == "hang":
        (repository / "started").write_text(str(os.getpid()))
        time.sleep(600)
    files = json.loads((repository / f"{bundle}.manifest.json").read_text())["files"]
    records = []
    for name in sorted(name for name in files if name.endswith(".onnx")):
        if mode == "partly" and not name.startswith("fusion/"):
            continue
        source = repository / name
        target = source.with_suffix(".cpu.onnx")
        stage = name.partition("/")[0]
        target.write_bytes((MIXED.get(stage, optimised) if mode == "mixed" else optimised)(source))
        if mode == "full":
            target.write_bytes(bytes(10_000_000))
        records.append(
            EngineRecord(
                graph=name.removesuffix(".onnx"),
                file=str(target.relative_to(repository)),
                digest=digest(target),
                onnx={name: files[name]},
                product="onnxruntime",
                version=product_version("onnxruntime"),
                target=processor(),
                compatibility=(),
                precision="fp32",
                stripped=False,
                profiles=(),
                kept=(),
                cost=1.0,
                build_s=0.0,
                command="toy",
                parity=EngineParity(mode != "unproven", "onnx", 5, 1.0, 0.0),
            )
        )
    write_records(repository, bundle, records)
    if mode == "partly":
        sys.exit("text_encoder has no engine: node relu_3 (Relu) is not known")


if __name__ == "__main__":
    main()
