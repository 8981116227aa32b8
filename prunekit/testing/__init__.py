"""Help for testing methods and adapters."""
