"""Grids and searches that any number of workers train."""
