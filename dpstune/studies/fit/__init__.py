"""Fit: from labelled rows to the best model that a budget finds, and an honest score of it."""
