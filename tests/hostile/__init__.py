"""Hostile, broken and good checkpoints, written by hand, and the runner that loads each in a process of its own."""
