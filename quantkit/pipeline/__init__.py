"""The verbs: what quantkit does, as functions that return values and print nothing."""
