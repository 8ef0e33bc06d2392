"""The version of quantkit, in one place."""

__version__ = "0.1.0"
