"""Metrics from labels and probabilities, and the report on them."""
