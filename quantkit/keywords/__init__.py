"""Keywords of the verbs in Python: how options become keywords, and how messages name them."""
