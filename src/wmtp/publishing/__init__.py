"""Crash-safe writing: checkpoints, training state, exports for other programs."""
