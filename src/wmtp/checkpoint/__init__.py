"""What a checkpoint holds, the proof that it fits its model, and crash-safe writing of new ones."""
