"""The version of quantkit, in one place."""

__version__ = "0.2.0"
