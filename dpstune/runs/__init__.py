"""A run's folder, and what makes it this run and no other."""
