"""Serve a model repository with the real Triton Inference Server.

One line per module, in the order in which a request or a start meets them:

- `cli`: the verb `sensorium serve`.
- `settings`: every setting, its limits and where its value came from.
- `manifest`: the digests of a repository's artefacts, checked before the start.
- `runtime`: the packaged Triton: binary, libraries, stub and backend directory.
- `command`, `process`, `launch`: one `tritonserver`, from start over ready to drained.
- `triton`: the adapter between Triton's Python backend and plain functions.
- `stages`: pure pre- and postprocessing on bytes and arrays.
- `onnx_session`, `batching`, `onnxruntime_backend`: graphs, batched across unequal requests.
- `decoding`, `decoding_loop`, `decoder_backend`: text, batched at every token across requests.
"""
