"""From a checkpoint to a published model repository, and the proof that it answers alike.

One line per module, in the order in which an export meets them:

- `cli`: the verbs `sensorium export` and `sensorium verify`.
- `checkpoint`, `models`: a checkpoint's weights and config, and the networks they fill.
- `ensembles`: how each task is made of stages, and which tasks a checkpoint's parts allow.
- `recipe`, `sections`, `tolerance`: what the checkpoint says about serving it: tasks, sizes,
  preprocessing, what may differ.
- `bundle`: the whole way, from checkpoint to published repository.
- `graphs`: which part of the model becomes which ONNX file.
- `onnx_graph`: one module as one graph, named by the contract.
- `seeded_inputs`, `runners`, `compare`, `stage_parity`: run both, then judge.
- `precision`: a graph in bf16 or int8, and how far it drifts.
- `model_config`, `stage_parameters`, `pbtxt`, `repository`: Triton's configs and folders.
- `repository_check`, `ensemble_check`: everything that is wrong with them, at once.
- `manifest`, `publish`, `repository_lock`: digests, and the repository's change as a whole or not
  at all, one at a time.
- `inspect_cli`, `inspect_repository`, `inspect_graphs`, `inspect_view`, `inspect_plot`: the verb
  `sensorium inspect`, which shows what was published from its files alone.

And those of a verification:

- `probes`, `probes_media`: pictures, sounds and clips as bytes, and questions, drawn from seeds.
- `reference`: the answer by PyTorch; what it makes of bytes, of labels and of noise is in
  `reference_input`, `reference_labels` and `reference_drawing`, all of it written anew.
- `serving_chain`: the same by ONNX Runtime and the serving stages, in this process.
- `served`: the same by a server, over gRPC and HTTP.
- `verify`, `judgement`, `agreement`, `parity_card`: compare them all, and show what came out.
- `testing`: a small checkpoint with random weights.
"""
