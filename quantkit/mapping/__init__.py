"""The map of a network: its operators as a drawn graph, each with what is known about its quantization."""
