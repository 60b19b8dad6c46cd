"""What the commands do, as functions: each takes a recipe or a table, and returns a typed result."""
