"""Measuring quality and speed; knows nothing of methods or plans."""
