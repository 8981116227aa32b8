"""Methods side by side: the same examples, the same seeds, one clock."""

FILE = "comparison.json"
"""The file in a comparison's folder that has all its figures."""
