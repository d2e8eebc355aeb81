"""Two checkpoints, value by value; one checkpoint, to its last byte."""
