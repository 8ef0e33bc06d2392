"""Objects and regions of two models beside each other: matched, counted, and the images that changed most."""
