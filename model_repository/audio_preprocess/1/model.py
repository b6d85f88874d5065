from sensorium_server.stages import audio
from sensorium_server.triton import as_model

TritonPythonModel = as_model(audio.stage)
