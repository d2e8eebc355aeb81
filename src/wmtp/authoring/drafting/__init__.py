"""Drafting how stored tensors become the parameters of a class: what transformers does with them, traced."""
