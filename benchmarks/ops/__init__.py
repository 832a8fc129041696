"""One file per op: its cases, peers and targets."""
