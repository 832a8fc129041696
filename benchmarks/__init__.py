"""Benchmarks: every op and model against what a user would otherwise run.

``python -m benchmarks.run`` measures, ``python -m benchmarks.report`` renders the results,
``python -m benchmarks.gpu_check`` does everything a machine with a GPU can tell.
"""
