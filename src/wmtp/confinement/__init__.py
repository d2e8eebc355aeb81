"""Processes that have given up most of what they may do: for files and programs that nobody vouches for."""
