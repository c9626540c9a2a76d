"""Weights generated from the candidate (MetaPruning) will live here; nothing does yet."""
