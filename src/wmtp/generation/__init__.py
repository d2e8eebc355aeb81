"""Text from a model: drafts by its own heads, verified by its own next-token head."""
