"""From an address to a model: build the declared class without weights, prove the plan, then assign the tensors."""
