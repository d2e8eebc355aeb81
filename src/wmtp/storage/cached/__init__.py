"""The parts of the cache: blobs and receipts, records, downloads in progress, turns between processes, upkeep."""
