from sensorium_server.stages import video
from sensorium_server.triton import as_model

TritonPythonModel = as_model(video.stage)
