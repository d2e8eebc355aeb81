"""metadata.json: how a checkpoint declares what it is and how it loads."""
