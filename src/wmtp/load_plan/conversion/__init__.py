"""Parameters made of several stored tensors, and stored tensors made of parameters again, as metadata.json declares."""
