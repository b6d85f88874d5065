from sensorium_server.stages import media_join
from sensorium_server.triton import as_model

TritonPythonModel = as_model(media_join.stage)
