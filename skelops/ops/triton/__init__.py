"""Triton kernels; imported at an op's first call on a GPU."""
