from sensorium_server.decoder_backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
