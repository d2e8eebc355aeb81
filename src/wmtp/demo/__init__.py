"""`wmtp demo`: a small model zoo made on the spot, trained on, loaded again, without a network."""
