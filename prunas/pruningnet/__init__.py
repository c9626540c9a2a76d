"""Weights generated from the candidate: the PruningNet of MetaPruning, and a lean one."""
