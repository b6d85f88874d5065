from sensorium_server.stages import text
from sensorium_server.triton import as_model

TritonPythonModel = as_model(text.stage)
