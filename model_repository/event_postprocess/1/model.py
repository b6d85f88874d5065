from sensorium_server.stages import events
from sensorium_server.triton import as_model

TritonPythonModel = as_model(events.stage)
