"""Sweeps: grids and searches whose runs any number of workers train."""
