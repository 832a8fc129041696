"""Every op x backend x case x check, and the parts an op is made of."""

import re
from pathlib import Path

import pytest

import skelops
from skelops._library import OPS
from skelops.testing.cases import cases_for
from skelops.testing.contract import (
    CHECKS,
    SMALL,
    Subject,
    available_backends,
    check,
    main,
    not_applicable,
)

ROOT = Path(__file__).parents[2]
ON_DATA = (
    "ball_query",
    "ctr_graph_unit",
    "farthest_point_sample",
    "graph_unit",
    "knn",
    "motion_mask",
    "ms_temporal_unit",
    "nn_lookup",
    "random_uniform",
    "sample_clips",
    "temporal_unit",
    "x3d_block",
)
TRACED = ("compile", "opcheck")  # seconds each; what they see of the reference is every op's alike
SECTIONS = ("Args", "Returns", "Raises", "Backends", "Example", "Source")


def selection(op, backend, reduced):
    """Cases and checks that go together; ``reduced`` is for kernels run by an interpreter."""
    for i, case in enumerate(cases_for(op.name)):
        for what in CHECKS:
            if what in SMALL:
                traced = what in TRACED and backend == "reference"
                wanted = case.small and not reduced and not (traced and i)
            elif reduced and case.small:
                wanted = i % 5 == 0
            elif reduced:
                largest = max((n for n in case.dims.values() if isinstance(n, int)), default=0)
                wanted = i % 3 == 0 and largest <= 128 and what in ("forward", "gradient")
            else:
                wanted = True
            if wanted:
                yield case, what


def pytest_generate_tests(metafunc):
    if "what" not in metafunc.fixturenames:
        return
    reduced = metafunc.config.getoption("--reduced")
    chosen = metafunc.config.getoption("--backend")
    rows = [
        pytest.param(op, backend, case, what, id=f"{op.name}-{backend}-{case.name}-{what}")
        for op in OPS.values()
        for backend in available_backends(op)
        if not chosen or backend in chosen
        for case, what in selection(op, backend, reduced)
    ]
    metafunc.parametrize("op, backend, case, what", rows)


def test_contract(op, backend, case, what):
    reason = not_applicable(Subject(op, backend, case), what)
    if reason is not None:
        pytest.skip(reason)
    check(op, backend, case, what)


def test_command_line(capsys):
    assert (
        main(["temporal_mean", "--backend", "reference", "--case", "coco", "--check", "fake"]) == 0
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("ok   temporal_mean[reference] coco: fake (")
    assert printed[-1] == "0 violations"


@pytest.fixture(params=OPS.values(), ids=OPS)
def op(request):
    return request.param


def test_has_fake_and_gradients(op):
    assert op.fake is not None, f"{op.name}: no fake"
    on_data = op.name in ON_DATA
    assert bool(op.grads) != on_data, f"{op.name}: no backward"


def test_has_cases(op):
    cases = cases_for(op.name)
    assert cases, f"no cases registered for op {op.name}"
    assert any(c.small for c in cases), f"{op.name}: no small case"
    assert all(c.public for c in cases), f"{op.name}: a case without public function"


def test_is_public(op):
    assert op.name in skelops.__all__, f"{op.name}: not in skelops.__all__"


def test_is_documented(op):
    text = getattr(skelops, op.name).__doc__ or ""
    missing = [s for s in SECTIONS if not re.search(rf"^ *{s}:", text, re.MULTILINE)]
    assert not missing, f"{op.name}: docstring without {', '.join(missing)}"
    stated = set(re.findall(r"\w+", re.search(r"Backends: (.*)\.", text).group(1)))
    assert stated == {"cpu", "reference", *op.gpu}, f"{op.name}: docstring names backends {stated}"


@pytest.mark.parametrize("path", ["benchmarks/ops/{}.py", "tests/ops/test_{}.py"])
def test_has_file(op, path):
    file = path.format(op.name)
    assert (ROOT / file).exists(), f"{op.name}: no {file}"
