"""Scores, metrics, predictions: of a model in training, of a run, of any model folder."""
