"""Rules about where Q/DQ pairs cost speed or accuracy: what TensorRT accepts, and could do better.

They are those of TensorRT's developer guide ("Q/DQ layer-placement recommendations"): quantize all inputs of weighted
operators, nothing between a convolution and what fuses into it, only the skip of a residual addition, and give one
scale to what is joined or only moved.
"""
