"""How good a network is, and what INT8 took from it: metrics, paired statistics, the values that hold the answer."""
