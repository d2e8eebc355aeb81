"""Reference losses and rewards beside every token: computed once, kept by what they depend on."""
