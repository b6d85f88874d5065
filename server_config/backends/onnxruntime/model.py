from sensorium_server.onnxruntime_backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
