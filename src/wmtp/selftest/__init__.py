"""Oracles of the algorithms, on the user's own model."""
