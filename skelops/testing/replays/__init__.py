"""What stands for the published classes: one file per family, found by ``replay.find``."""
