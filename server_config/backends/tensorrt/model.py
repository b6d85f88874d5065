from sensorium_server.tensorrt_backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
