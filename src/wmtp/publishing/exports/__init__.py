"""What other programs load and serve: one file for each kind of reader; `targets` knows them by name."""
