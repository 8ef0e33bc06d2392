"""Objects that detectors find: collected in image pixels, matched with labels by pycocotools, and measured."""
