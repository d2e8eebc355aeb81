"""Documents, tokens, rows, batches."""
