"""Recipes, the settings of a run: found, read from YAML, overridden, checked."""
