"""quantkit: INT8 post-training quantization for TensorRT.

    import quantkit
    result = quantkit.calibrate("model.onnx", "images/", output="model.calib")

The public interface is the list of names in `__init__.pyi`; each is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
