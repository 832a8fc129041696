"""The contract of an op: what every backend has to fulfil on every case, check by check.

``check(op, backend, case)`` raises ``ContractError`` naming op, backend, case and check. It takes
any op declared by ``skelops._library.define``, also one of a user's own library. From a shell:
``python -m skelops.testing.contract graph_conv --backend cpu``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from skelops import _backend
from skelops._library import LIBRARY, OPS, Op, _as_tuple
from skelops.testing import compare
from skelops.testing.cases import LAYOUTS, Case, cases_for, relayout
from skelops.testing.threads import threads

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
BATCHES = (2, 3, 5, 4)
DRAWS = (1, 15, 60)

Results = dict[str, Tensor]


class ContractError(AssertionError):
    """A backend of an op violates its contract."""


class _Violation(Exception):
    pass


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise _Violation(message)


def _map(args: Iterable, function: Callable[[Tensor], Tensor]) -> list:
    """Tensors replaced, in lists of them too."""

    def replaced(a: Any) -> Any:
        if isinstance(a, Tensor):
            return function(a)
        return _map(a, function) if isinstance(a, list) else a

    return [replaced(a) for a in args]


def _to(args: Iterable, dtype: torch.dtype) -> list:
    """Floating tensors in another dtype, and results too where an argument names theirs."""
    found = _map(args, lambda t: t.detach().to(dtype) if t.is_floating_point() else t.detach())
    return [dtype if isinstance(a, torch.dtype) else a for a in found]


def _grad_outputs(op: Op, outputs: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    grads = []
    for i in op.differentiable_outputs:
        g = torch.randn(outputs[i].shape, dtype=torch.float64, generator=generator)
        grads.append(g.to(outputs[i]))
    return grads


def _evaluate(
    op: Op,
    function: Callable,
    args: Sequence,
    grad_outputs: Sequence[Tensor] | None = None,
    wanted: Sequence[str] | None = None,
    backward: bool = True,
) -> Results:
    """Outputs and gradients by name; ``function`` takes the torch op's arguments."""
    args = _map(args, torch.Tensor.detach)
    leaves: dict[str, Tensor] = {}
    for name, k in zip(op.grads, op.grad_index, strict=True):
        if backward and isinstance(args[k], Tensor) and (wanted is None or name in wanted):
            leaves[f"grad of {name}"] = args[k] = args[k].detach().requires_grad_()
    outputs = _as_tuple(function(*args))
    results = {n: t.detach() for n, t in zip(op.outputs, outputs, strict=False)}
    if leaves:
        if grad_outputs is None:
            grad_outputs = _grad_outputs(op, outputs)
        found = torch.autograd.grad(
            [outputs[i] for i in op.differentiable_outputs],
            list(leaves.values()),
            list(grad_outputs),
            materialize_grads=True,
        )
        results.update(zip(leaves, found, strict=True))
    return results


@cache
def _seed(op: Op, case: Case) -> int:
    """The first seed whose gradients do not hinge on a rounding at a kink of the op."""

    def perturbed(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        return t * (1 + 1e-6 * torch.randn(t.shape, dtype=t.dtype, generator=generator))

    for seed in range(50 if case.backward else 0):
        generator = torch.Generator().manual_seed(seed)
        args = case.make(torch.float64, "cpu", generator)
        exact = _evaluate(op, op.reference, args)
        near = _evaluate(op, op.reference, _map(args, perturbed))
        errors = (
            compare.error(near[name], e, torch.float64, _scale(exact, name))
            for name, e in exact.items()
            if "grad" in name
        )
        if max(errors) < 1e-4:
            return seed
    return 0


@dataclass(frozen=True)
class Subject:
    """One op on one backend and one case, with what the checks ask of them."""

    op: Op
    backend: str
    case: Case

    @cached_property
    def interpreted(self) -> bool:
        return os.environ.get("TRITON_INTERPRET") == "1" and self.backend == "triton"

    @cached_property
    def device(self) -> str:
        on_gpu = self.backend in self.op.gpu and not self.interpreted
        return "cuda" if on_gpu else "cpu"

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        tried = DTYPES[1:] if self.interpreted else DTYPES
        return tuple(d for d in tried if self.refuses(d) is None)

    @property
    def public(self) -> Callable:
        return self.case.public or self.op.forward_op

    def refuses(self, dtype: torch.dtype) -> str | None:
        """Why the backend does not run this case in this dtype."""
        if self.interpreted and dtype == torch.bfloat16:
            return "Triton's interpreter has no bfloat16 product"
        if self.backend in self.op.gpu:
            return _backend._module(self.backend, self.op.name).supports(*self.args(dtype))
        return None

    def args(self, dtype: torch.dtype = torch.float32, seed: int = 0, **dims: Any) -> list:
        generator = torch.Generator().manual_seed(_seed(self.op, self.case) + 1000 * seed)
        return list(self.case.make(dtype, self.device, generator, **dims))

    def evaluate(self, args: Sequence, *grad_outputs: Tensor, **kwargs: Any) -> Results:
        return _evaluate(
            self.op,
            self.op.forward_op,
            args,
            grad_outputs or None,
            backward=self.case.backward,
            **kwargs,
        )

    def mask(self, args: Sequence) -> int:
        """The gradients there are: of tensors that have elements."""
        tensors = (isinstance(args[k], Tensor) and args[k].numel() > 0 for k in self.op.grad_index)
        return sum(present << i for i, present in enumerate(tensors))

    def backward_args(self, args: Sequence, needs: int | None = None) -> list:
        """Arguments of the backward op."""
        with torch.no_grad():
            outputs = _as_tuple(self.op.forward_op(*args))
        saved = [outputs[self.op.outputs.index(name)] for name in self.op.saved]
        needs = self.mask(args) if needs is None else needs
        return [*_grad_outputs(self.op, outputs), *args, *saved, needs]

    def backward_names(self) -> list[str]:
        return [f"grad of {name}" for name in self.op.grads]

    @property
    def has_backward_op(self) -> bool:
        return self.case.backward and self.op.has_backward_op


@contextlib.contextmanager
def _running(subject: Subject) -> Iterator[None]:
    """The backend in force, without a detour where it is the one that would run anyway."""
    op, backend, device = subject.op, subject.backend, subject.device
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        if op.library is LIBRARY and _backend.active(op, device)[0] != backend:
            stack.enter_context(_backend.use_backend(backend))
        yield


def _same(got: Results, expected: Results, what: str, bitwise: bool = False) -> None:
    _require(got.keys() == expected.keys(), f"{what}: {list(got)} against {list(expected)}")
    for name, e in expected.items():
        value, scale = got[name], _scale(expected, name)
        if value.shape != e.shape:
            raise _Violation(f"{what}: {name} has shape {tuple(value.shape)}, not {tuple(e.shape)}")
        if not (torch.equal(value, e) if bitwise else compare.close(value, e, scale)):
            error = compare.error(value, e, e.dtype, scale)
            raise _Violation(f"{what}: {name} differs by {error:.1e}")


def _scale(results: Results, name: str) -> float:
    """The size of the terms of a gradient, output gradients being of size one."""
    out = next(iter(results.values()))
    return compare.term_size(torch.ones_like(out), results[name]) if "grad" in name else 0.0


def _errors(
    subject: Subject, dtype: torch.dtype, gradients: bool, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Per result the error of the op and that of the reference in this dtype."""
    op, backward = subject.op, gradients and subject.case.backward
    args = subject.args(dtype, seed=seed)
    got = _evaluate(op, op.forward_op, args, backward=backward)
    eager = _evaluate(op, op.reference, args, backward=backward)
    outputs = [got[op.outputs[i]] for i in op.differentiable_outputs]
    grad_outputs = _to(_grad_outputs(op, outputs), torch.float64)
    exact = _evaluate(op, op.reference, _to(args, torch.float64), grad_outputs, backward=backward)
    errors = {}
    for name, value in got.items():
        if ("grad" in name) != gradients:
            continue
        e = exact[name]
        shapes = f"{name}: shape {tuple(value.shape)}, expected {tuple(e.shape)}"
        _require(value.shape == e.shape, shapes)
        expected = eager[name].dtype
        _require(value.dtype == expected, f"{name}: {value.dtype}, expected {expected}")
        scale = _scale(exact, name)
        errors[name] = (
            compare.error(value, e, dtype, scale),
            compare.error(eager[name], e, dtype, scale),
        )
    return errors


def _accurate(subject: Subject, gradients: bool) -> None:
    for dtype in subject.dtypes:
        draws: list[dict[str, tuple[float, float]]] = []
        # In half types a few elements at a kink may decide a draw, but not the sum of many.
        for count in DRAWS if dtype in compare.HALVES else DRAWS[:1]:
            draws += [_errors(subject, dtype, gradients, i) for i in range(len(draws), count)]
            excess = _excess(draws, dtype)
            if excess is None:
                break
        else:
            raise _Violation(excess)


def _excess(draws: list[dict[str, tuple[float, float]]], dtype: torch.dtype) -> str | None:
    """The first result that over all draws is less accurate than ``compare`` demands."""
    for name in draws[0]:
        error, eager = (
            sum(d[name][i] ** 2 for d in draws) ** 0.5 / len(draws) ** 0.5 for i in range(2)
        )
        bound = compare.bound(eager, dtype)
        if not error <= bound:
            return f"{name} in {dtype}: error {error:.1e}, bound {bound:.1e}"
    return None


CHECKS: dict[str, Callable[[Subject], None]] = {}
SMALL: set[str] = set()
BACKWARD: set[str] = set()


def _register(small: bool = False, backward: bool = False) -> Callable:
    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name = function.__name__
        CHECKS[name] = function
        if small:
            SMALL.add(name)
        if backward:
            BACKWARD.add(name)
        return function

    return register


def _layout_of(t: Tensor) -> tuple:
    strides = [s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1] if t.numel() else []
    return tuple(t.shape), strides, t.dtype, t.device.type


def _same_layout(names: Sequence[str], real: Sequence, fakes: Sequence) -> None:
    for name, r, f in zip(names, real, fakes, strict=True):
        for what, a, b in zip(
            ("shape", "strides", "dtype", "device"), _layout_of(r), _layout_of(f), strict=True
        ):
            _require(a == b, f"{name}: the fake has {what} {b}, the result {a}")


@_register()
def fake(subject: Subject) -> None:
    """Fake results have the shapes, strides, dtypes and devices of the real ones."""
    op = subject.op
    _require(op.fake is not None, "no fake")

    def compare_op(function: Callable, args: Sequence, names: Sequence[str]) -> None:
        with torch.no_grad():
            real = _as_tuple(function(*args))
            with FakeTensorMode() as mode:
                found = _as_tuple(function(*_map(args, mode.from_tensor)))
        _same_layout(names, real, found)

    args = subject.args()
    compare_op(op.forward_op, args, op.outputs)
    if subject.has_backward_op:
        for needs in (subject.mask(args), *_single_needs(subject, args)):
            compare_op(op.backward_op, subject.backward_args(args, needs), subject.backward_names())


def _single_needs(subject: Subject, args: Sequence) -> list[int]:
    mask = subject.mask(args)
    return [1 << i for i in range(len(subject.op.grads)) if mask >> i & 1]


@_register()
def forward(subject: Subject) -> None:
    """Every output is as accurate as ``compare`` demands, in every dtype."""
    _accurate(subject, gradients=False)


@_register(backward=True)
def gradient(subject: Subject) -> None:
    """Every gradient is as accurate as ``compare`` demands, in every dtype."""
    _accurate(subject, gradients=True)


@_register()
def strides(subject: Subject) -> None:
    """Transposed, sliced and expanded inputs and output gradients count like contiguous copies."""
    args = subject.args()
    with torch.no_grad():
        grads = _grad_outputs(subject.op, _as_tuple(subject.op.forward_op(*args)))
    for layout in LAYOUTS[1:]:
        strided = _map(args, partial(relayout, layout=layout))
        strided_grads = [relayout(g, layout) for g in grads]
        compact, compact_grads = _map(strided, _copy), [_copy(g) for g in strided_grads]
        expected = subject.evaluate(compact, *compact_grads)
        _same(subject.evaluate(strided, *compact_grads), expected, f"{layout} inputs")
        if subject.case.backward:
            _same(subject.evaluate(compact, *strided_grads), expected, f"{layout} grad_output")
    if subject.case.backward:
        ones = [torch.ones_like(g) for g in grads]
        scalars = [g.new_ones(()).expand(g.shape) for g in grads]
        _same(
            subject.evaluate(args, *scalars), subject.evaluate(args, *ones), "expanded grad_output"
        )


def _copy(t: Tensor) -> Tensor:
    return t.clone(memory_format=torch.contiguous_format)


@_register()
def inputs_untouched(subject: Subject) -> None:
    """Neither inputs nor output gradients nor saved tensors change, by a single bit."""
    op, args = subject.op, subject.args()
    names = [name for _, name in op.arguments]

    def unchanged(function: Callable, names: Sequence[str], args: Sequence) -> None:
        before = _map(args, _copy)
        with torch.no_grad():
            function(*args)
        for name, a, b in zip(names, args, before, strict=True):
            for old, new in zip(tree_leaves(b), tree_leaves(a), strict=True):
                same = not isinstance(new, Tensor) or torch.equal(new, old)
                _require(same, f"{function} changes {name}")

    unchanged(op.forward_op, names, args)
    if subject.has_backward_op:
        grads = [f"grad_{op.outputs[i]}" for i in op.differentiable_outputs]
        saved = [f"saved {name}" for name in op.saved]
        unchanged(op.backward_op, [*grads, *names, *saved, "needs"], subject.backward_args(args))


@contextlib.contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Deterministic mode fills what ``empty`` returns with NaN, in C++ kernels too."""
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


@_register()
def poison(subject: Subject) -> None:
    """Nothing depends on uninitialised memory, which is filled with NaN for this check."""
    args = subject.args()
    expected = subject.evaluate(args)
    with _poisoned_memory():
        got = subject.evaluate(args)
    for name, value in got.items():
        finite = torch.equal(value.isfinite(), expected[name].isfinite())
        _require(finite, f"{name} holds uninitialised values")
    _same(got, expected, "with poisoned memory")


@_register()
def deterministic(subject: Subject) -> None:
    """Runs agree bit by bit; those of a native CPU kernel also for one and two threads."""
    args = subject.args()
    with threads(1):
        expected = subject.evaluate(args)
        _same(subject.evaluate(args), expected, "second run", bitwise=True)
    if subject.device == "cpu" and subject.backend not in ("reference", "triton"):
        with threads(2):
            _same(subject.evaluate(args), expected, "two threads", bitwise=True)


@_register(backward=True)
def retain_graph(subject: Subject) -> None:
    """A second backward through the same graph gives the same gradients."""
    args = subject.args()
    function, leaves = _differentiable(subject, args)
    names = [
        n
        for n, k in zip(subject.op.grads, subject.op.grad_index, strict=True)
        if isinstance(args[k], Tensor)
    ]
    outputs = function(*leaves)
    grads = [torch.randn_like(o) for o in outputs]
    first, second = (
        torch.autograd.grad(outputs, leaves, grads, retain_graph=True) for _ in range(2)
    )
    for name, a, b in zip(names, first, second, strict=True):
        _require(torch.equal(a, b), f"second backward: grad of {name} differs")


@_register(backward=True)
def needs(subject: Subject) -> None:
    """A gradient does not depend on which others are wanted; unwanted ones stay empty."""
    op, args = subject.op, subject.args()
    full = subject.evaluate(args)
    for i, name in enumerate(op.grads):
        key = f"grad of {name}"
        if key not in full or full[key].numel() == 0:
            continue
        alone = subject.evaluate(args, wanted=[name])
        expected = {n: full[n] for n in (*op.outputs, key)}
        _same(alone, expected, f"only {name} wanted")
        if subject.has_backward_op:
            found = _as_tuple(op.backward_op(*subject.backward_args(args, 1 << i)))
            _require(len(found) == len(op.grads), f"{len(found)} gradients for {len(op.grads)}")
            for other, value in zip(op.grads, found, strict=True):
                _require(
                    other == name or value.numel() == 0,
                    f"only {name} wanted: grad of {other} has shape {tuple(value.shape)}",
                )


@_register()
def empty(subject: Subject) -> None:
    """A batch without samples gives results of the right shapes, and gradients that are zero."""
    op, args = subject.op, subject.args(N=0)
    got = subject.evaluate(args)
    exact = _evaluate(op, op.reference, args, backward=subject.case.backward)
    for name, e in exact.items():
        _require(
            got[name].shape == e.shape and got[name].dtype == e.dtype,
            f"{name}: {tuple(got[name].shape)} of {got[name].dtype}, "
            f"expected {tuple(e.shape)} of {e.dtype}",
        )
        if "grad" in name:
            _require(not got[name].any(), f"{name} is not zero")


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr() if t.numel() else 0


@_register()
def aliasing(subject: Subject) -> None:
    """Results own their memory: they alias neither arguments nor each other."""
    op, args = subject.op, subject.args()

    def fresh(function: Callable, args: Sequence, names: Sequence[str]) -> None:
        with torch.no_grad():
            results = _as_tuple(function(*args))
        taken = {_storage(a) for a in tree_leaves(args) if isinstance(a, Tensor)} - {0}
        for name, r in zip(names, results, strict=True):
            _require(_storage(r) not in taken, f"{name} aliases an argument or another result")
            taken |= {_storage(r)} - {0}

    fresh(op.forward_op, args, op.outputs)
    if subject.has_backward_op:
        fresh(op.backward_op, subject.backward_args(args), subject.backward_names())


@_register(backward=True)
def autocast(subject: Subject) -> None:
    """In an autocast region the result has the region's dtype, or that of a loss, and its
    accuracy."""
    op, args = subject.op, subject.args()
    _require(subject.case.public is not None, "no public function in the case")
    for dtype in subject.dtypes:
        if dtype not in compare.HALVES:
            continue
        with torch.autocast(subject.device, dtype):
            got = _evaluate(op, lambda *a: subject.public(*_map_buffers(op, a)), args)
        out = got[op.outputs[0]]
        expected = torch.float32 if op.full_precision else dtype
        _require(out.dtype == expected, f"result of {out.dtype} in a region of {dtype}")
        eager = _evaluate(op, op.reference, _to(args, dtype))
        outputs = [got.get(name) for name in op.outputs]
        grads = [g.double() for g in _grad_outputs(op, outputs)]
        exact = _evaluate(op, op.reference, _to(args, torch.float64), grads)
        for name, value in got.items():
            scale = _scale(exact, name)
            error = compare.error(value, exact[name], dtype, scale)
            bound = compare.bound(compare.error(eager[name], exact[name], dtype, scale), dtype)
            if "grad" in name:  # judged by ``gradient``: here only that the casts pass it on
                bound = max(bound, 0.1)
                _require(value.dtype == torch.float32, f"{name} of a float32 leaf is {value.dtype}")
            _require(error <= bound, f"{name} in {dtype}: error {error:.1e}, bound {bound:.1e}")


def _map_buffers(op: Op, args: Sequence) -> list:
    """Arguments without gradient, such as running statistics, as copies that may be updated."""
    return [
        a.clone() if isinstance(a, Tensor) and i not in op.grad_index else a
        for i, a in enumerate(args)
    ]


@_register(small=True)
def opcheck(subject: Subject) -> None:
    """``torch.library.opcheck`` on the op and on its backward op."""
    op, args = subject.op, subject.args()
    with_leaves = [
        a.detach().requires_grad_() if isinstance(a, Tensor) and i in op.grad_index else a
        for i, a in enumerate(args)
    ]
    torch.library.opcheck(op.forward_op, tuple(with_leaves if subject.case.backward else args))
    if subject.has_backward_op:
        torch.library.opcheck(op.backward_op, tuple(subject.backward_args(args)))


def _differentiable(subject: Subject, args: Sequence) -> tuple[Callable, list[Tensor]]:
    """The op as a function of its differentiable arguments alone."""
    op = subject.op
    places = [k for k in op.grad_index if isinstance(args[k], Tensor)]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        filled = list(args)
        for k, t in zip(places, tensors, strict=True):
            filled[k] = t
        outputs = _as_tuple(op.forward_op(*filled))
        return tuple(outputs[i] for i in op.differentiable_outputs)

    return function, [args[k].detach().clone().requires_grad_() for k in places]


@_register(small=True, backward=True)
def gradcheck(subject: Subject) -> None:
    """The gradient against finite differences in float64."""
    function, tensors = _differentiable(subject, subject.args(torch.float64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.autograd.gradcheck(function, tensors, fast_mode=subject.device != "cpu")


@_register(small=True, backward=True)
def gradgradcheck(subject: Subject) -> None:
    """The gradient of the gradient against finite differences in float64."""
    function, tensors = _differentiable(subject, subject.args(torch.float64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@_register(small=True)
def compile(subject: Subject) -> None:
    """One graph without breaks, equal to eager, traced at most twice for all batch sizes."""
    op, graphs = subject.op, 0

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        nonlocal graphs
        graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    constants = [None if isinstance(a, Tensor) else a for a in subject.args()]

    def function(*tensors: Tensor | None) -> Any:
        pairs = zip(tensors, constants, strict=True)
        return subject.public(*(c if t is None else t for t, c in pairs))

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    for N in BATCHES:
        args = subject.args(N=N)
        results = []
        for run in (function, compiled):
            tensors = [a if isinstance(a, Tensor) else None for a in args]
            buffers = _map_buffers(op, tensors)
            places = [
                i
                for i, b in enumerate(buffers)
                if b is not None and b.is_floating_point() and i not in op.grad_index
            ]
            found = _evaluate(
                op,
                lambda *t, run=run, buffers=buffers: run(
                    *(v if i in op.grad_index else buffers[i] for i, v in enumerate(t))
                ),
                tensors,
                backward=subject.case.backward,
            )
            found |= {op.arguments[i][1]: buffers[i] for i in places}
            results.append(found)
        eager, traced = results
        _same(traced, eager, f"compiled with batch {N}")
    _require(graphs <= 2, f"{graphs} graphs for batches {BATCHES}")


def not_applicable(subject: Subject, what: str) -> str | None:
    """Why a check does not concern this backend and case."""
    case = subject.case
    if what in SMALL and not case.small:
        return "only for small cases"
    if what in BACKWARD and not case.backward:
        return "the case has no backward"
    if what == "autocast" and case.public is None:
        return "the case has no public function"
    dtype = torch.float64 if what in ("gradcheck", "gradgradcheck") else torch.float32
    return subject.refuses(dtype)


def check(op: Op, backend: str, case: Case, what: str | Sequence[str] | None = None) -> None:
    """Run checks of one case; return quietly where they do not apply.

    Args:
        op: declared by ``define``.
        backend: one of ``skelops._backend.BACKENDS``; only a name for an op of another library,
            which runs as it is dispatched.
        case: from ``cases_for`` or of one's own.
        what: a check or several; all ``CHECKS`` by default.

    Raises:
        ContractError: ``<op>[<backend>] <case>: <check>: <what went wrong>``.
    """
    subject = Subject(op, backend, case)
    for name in [what] if isinstance(what, str) else what or CHECKS:
        try:
            with _running(subject):
                if not_applicable(subject, name) is None:
                    CHECKS[name](subject)
        except Exception as error:
            text = str(error) if isinstance(error, _Violation) else _describe(error)
            message = f"{op.name}[{backend}] {case.name}: {name}: {text}"
            raise ContractError(message) from error


def _describe(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:6])}"


def available_backends(op: Op) -> list[str]:
    """Backends that can run the op here."""
    return [
        b
        for b in _backend.BACKENDS
        if any(_backend.unavailable(op, b, device) is None for device in _backend.DEVICES)
    ]


def run_contract(
    op: Op,
    backends: Sequence[str] | None = None,
    cases: Sequence[Case] | None = None,
    checks: Sequence[str] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Every check of every case on every backend; raises with all violations at the end."""
    cases = cases_for(op.name) if cases is None else cases
    if not cases:
        raise ContractError(f"no cases registered for op {op.name}")
    if op.fake is None:
        raise ContractError(f"{op.name}: no fake")
    violations = []
    for backend in available_backends(op) if backends is None else backends:
        for case in cases:
            for name in checks or CHECKS:
                start = time.perf_counter()
                try:
                    check(op, backend, case, name)
                except ContractError as error:
                    violations.append(str(error))
                    report(f"FAIL {error}")
                else:
                    seconds = time.perf_counter() - start
                    report(f"ok   {op.name}[{backend}] {case.name}: {name} ({seconds:.2f} s)")
    if violations:
        raise ContractError("\n".join(violations))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m skelops.testing.contract")
    parser.add_argument("ops", nargs="*", help="ops; all by default")
    parser.add_argument("--backend", action="append", choices=_backend.BACKENDS)
    parser.add_argument("--case", action="append", help="only these cases")
    parser.add_argument("--check", action="append", choices=list(CHECKS))
    parser.add_argument("--small", action="store_true", help="only small cases")
    options = parser.parse_args(argv)
    failed = 0
    for name in options.ops or OPS:
        cases = [
            c
            for c in cases_for(name)
            if (not options.case or c.name in options.case) and (c.small or not options.small)
        ]
        try:
            run_contract(OPS[name], options.backend, cases, options.check, print)
        except ContractError as error:
            failed += len(str(error).splitlines())
    print(f"{failed} violations")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
