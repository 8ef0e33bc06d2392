"""Tests of the GPU profile."""
