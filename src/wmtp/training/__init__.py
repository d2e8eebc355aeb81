"""Training: documents to rows, a thin Trainer, and checkpoints that load as their base model did."""
