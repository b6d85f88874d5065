from sensorium_server.stages import tags
from sensorium_server.triton import as_model

TritonPythonModel = as_model(tags.stage)
