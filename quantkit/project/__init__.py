"""The whole way from a model and data to a report, as steps that are redone only when their inputs changed."""
