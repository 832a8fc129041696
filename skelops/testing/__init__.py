"""Cases, comparison rules and the contract that every op and every backend has to fulfil.

``skelops.testing.cases``, ``skelops.testing.compare``, ``skelops.testing.contract``; from a shell
``python -m skelops.testing.contract graph_conv --backend cpu``.
"""
