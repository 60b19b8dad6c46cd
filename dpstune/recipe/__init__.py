"""What a run is: recipes, read from YAML and checked."""
