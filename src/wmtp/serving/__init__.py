"""What other programs read of a checkpoint's prediction heads, and whether they would draft with them."""
