"""From files to batches: patches found, split, copied and read."""
