"""Tuning: the cheapest INT8 configuration inside an accuracy budget."""
