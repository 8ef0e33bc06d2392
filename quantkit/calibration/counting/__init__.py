"""How the activations of slices of batches are counted: by several threads, on the host or on a device."""
