"""Scores of generated images against their targets, as the field's public code computes them."""
