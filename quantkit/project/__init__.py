"""The end-to-end run from a model and data to a report, in steps that are repeated only if their inputs change."""
