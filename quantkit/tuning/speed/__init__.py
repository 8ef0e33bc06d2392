"""Placement by measured time: which layers are INT8, chosen so that the engine is fast."""
