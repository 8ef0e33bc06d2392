"""Counting the activations of a run on the GPU: the kernels, their tables, and their launches."""
