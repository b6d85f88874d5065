from sensorium_server.stages import actions
from sensorium_server.triton import as_model

TritonPythonModel = as_model(actions.stage)
