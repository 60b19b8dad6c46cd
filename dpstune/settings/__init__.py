"""What can be set: the sections of a recipe, and what a task is."""
