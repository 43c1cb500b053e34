"""TensorRT: looked for, and refused with the reason."""

import tensorrt

from levelfield.adapters.base import Adapter as Base
from levelfield.adapters.base import Unsupported


class Adapter(Base):
    """``tensorrt:engine``. No engine could be run where this was written, so none are built.

    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html
    """

    def configure(self):
        """Refuse with the reason."""
        if self.device != "cuda":
            raise Unsupported(
                'TensorRT runs on NVIDIA\'s GPUs only: write device = "cuda" in a suite'
            )
        try:
            tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
        except TypeError as error:  # its factory returned nothing
            raise Unsupported("TensorRT finds no GPU that it can use") from error
        raise Unsupported(f"TensorRT {tensorrt.__version__} is here, but no engines are built yet")
