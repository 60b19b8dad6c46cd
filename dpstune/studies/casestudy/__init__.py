"""The examples that every restart gets right or wrong."""
