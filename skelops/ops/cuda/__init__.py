"""Kernels compiled ahead of time by nvcc (skelops/_C_cuda), as backends of ops."""
