"""Opening pickles, which loading never does: in a process of their own that can do as little as possible."""
