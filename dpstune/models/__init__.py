"""From a name to a classifier, and what a classifier is made of."""
