"""One file per model: its cases, peers and targets."""
