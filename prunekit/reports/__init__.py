"""Reports, made from plain data."""
