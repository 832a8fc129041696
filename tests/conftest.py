"""Options and fixtures of every test: the machine's devices, one thread per xdist worker."""

import logging
import os

import pytest
import torch

from skelops._backend import BACKENDS


def pytest_addoption(parser):
    parser.addoption(
        "--backend", action="append", choices=BACKENDS, help="contract tests: only these backends"
    )
    parser.addoption(
        "--reduced", action="store_true", help="contract tests: a selection for slow backends"
    )


def pytest_configure(config):
    logging.getLogger("torch.__trace").propagate = False
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
