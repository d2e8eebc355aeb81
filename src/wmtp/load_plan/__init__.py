"""From headers to values: which tensors make which parameter, proven before a weight is read, and filled."""
