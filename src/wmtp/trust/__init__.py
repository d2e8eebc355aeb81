"""Consent to run a checkpoint's own code, by hash, and the only way in which such code runs."""
