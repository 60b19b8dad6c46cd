"""From a task to batches of tokens."""
