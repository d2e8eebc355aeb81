"""What a run would use, cost and need, before it starts."""
