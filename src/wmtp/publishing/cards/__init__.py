"""README.md of a checkpoint: what it is, from what and how it was made, and how it loads."""
