"""Where bytes live: addresses, and one interface to read them, whatever stores them."""
