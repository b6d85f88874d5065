from sensorium_server.stages import image
from sensorium_server.triton import as_model

TritonPythonModel = as_model(image.stage)
