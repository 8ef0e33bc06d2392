"""Models of PyTorch, TensorFlow and TFLite: conversion to ONNX, and the framework's own outputs for comparison."""
