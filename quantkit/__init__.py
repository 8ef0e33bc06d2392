"""quantkit: INT8 post-training quantization for TensorRT.

    import quantkit
    result = quantkit.calibrate("model.onnx", "images/", output="model.calib")

The public interface is the list of names in `__init__.pyi`; each is loaded when it is first used.
"""

import lazy_loader

try:
    _found = lazy_loader.attach_stub(__name__, __file__)
except ValueError:  # imported from a zip file, where the table is no file of its own
    from importlib.resources import as_file, files

    with as_file(files(__name__).joinpath("__init__.pyi")) as _table:
        _found = lazy_loader.attach_stub(__name__, str(_table))
__getattr__, __dir__, __all__ = _found
