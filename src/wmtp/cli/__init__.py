"""The `wmtp` program. Modules of wmtp that cost time to import are imported by the command that needs them."""
