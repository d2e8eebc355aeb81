"""What makes or changes checkpoints: drafts, upgrades, grown heads, exports. It may guess; loading never does."""
