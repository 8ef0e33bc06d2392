"""The verb compile: what NVIDIA's compiler makes of a network, without a GPU, beside the float network in FP16."""
