from sensorium_server.diffusion_backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
