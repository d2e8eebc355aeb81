"""The multi-token prediction model: a causal LM as trunk, prediction heads on it, and their cross-entropy."""
