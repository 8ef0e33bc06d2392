"""Outputs of two models side by side: sums of their differences, predictions, and what shows that they are scores."""
