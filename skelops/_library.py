"""Declaring ops: one schema and one readable reference; fake, backward and double backward follow.

``define`` registers ``skelops::<name>`` with its reference under ``CompositeExplicitAutograd``, so
that a native kernel registered later for a device takes precedence and the reference remains the
fallback. The op ``skelops::<name>_backward`` has the same owners; its reference is the
vector-Jacobian product of the forward reference, which also gives every op a double backward.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

NAMESPACE = "skelops"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
OPS: dict[str, Op] = {}

_AUTOGRAD_KEYS = [
    getattr(torch._C.DispatchKey, name)
    for name in (
        "AutogradCPU",
        "AutogradCUDA",
        "AutogradMeta",
        "AutogradOther",
        "AutogradFunctionality",
        "ADInplaceOrView",
    )
]


@contextlib.contextmanager
def _autograd_reenabled() -> Iterator[None]:
    """Record autograd inside a kernel that the dispatcher runs below autograd."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in _AUTOGRAD_KEYS:
        excluded = excluded.remove(key)
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def _shares_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


def _as_tuple(value: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


@dataclass(frozen=True)
class Op:
    """A declared op: its schema, its reference and the torch ops made from them."""

    name: str
    schema: str
    reference: Callable
    fake: Callable | None
    grads: tuple[str, ...]
    saved: tuple[str, ...]
    gpu: tuple[str, ...]
    composite_backward: Callable | None
    full_precision: bool
    again: Callable | None
    library: torch.library.Library

    @cached_property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """(type, name) of every argument, in schema order."""
        inside = self.schema[1 : self.schema.index(") -> ")]
        pairs = (item.rpartition(" ") for item in inside.split(", "))
        return tuple((kind, name) for kind, _, name in pairs)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        return tuple(re.findall(r"Tensor (\w+)", self.schema.split(" -> ")[1])) or ("out",)

    @cached_property
    def differentiable_outputs(self) -> tuple[int, ...]:
        """Outputs that are only kept for the backward carry no gradient; the first always does."""
        return tuple(i for i, n in enumerate(self.outputs) if i == 0 or n not in self.saved)

    @cached_property
    def grad_index(self) -> tuple[int, ...]:
        names = [name for _, name in self.arguments]
        return tuple(names.index(name) for name in self.grads)

    @cached_property
    def backward_schema(self) -> str:
        arguments = [f"Tensor grad_{self.outputs[i]}" for i in self.differentiable_outputs]
        arguments += [f"{kind} {name}" for kind, name in self.arguments]
        arguments += [f"Tensor saved_{name}" for name in self.saved]
        results = ", ".join(["Tensor"] * len(self.grads))
        results = results if len(self.grads) == 1 else f"({results})"
        return f"({', '.join(arguments)}, int needs) -> {results}"

    @property
    def has_backward_op(self) -> bool:
        return bool(self.grads) and self.composite_backward is None

    @cached_property
    def forward_op(self) -> torch._ops.OpOverload:
        return getattr(getattr(torch.ops, self.library.ns), self.name).default

    @cached_property
    def backward_op(self) -> torch._ops.OpOverload:
        return getattr(getattr(torch.ops, self.library.ns), f"{self.name}_backward").default

    def __call__(self, *args):
        return self.forward_op(*args)

    def split_backward(self, args: Sequence) -> tuple[Sequence, Sequence, Sequence, int]:
        """Arguments of the backward op -> (output gradients, inputs, saved outputs, needs)."""
        a = len(self.differentiable_outputs)
        b = a + len(self.arguments)
        return args[:a], args[a:b], args[b:-1], args[-1]

    def needs(self, i: int, mask: int) -> bool:
        return bool(mask >> i & 1)

    def vjp(
        self, inputs: Sequence, grads: Sequence, needs: int, create_graph: bool
    ) -> list[Tensor]:
        """Gradients of the reference; an empty tensor where ``needs`` has no bit."""
        inputs = list(inputs)
        wanted = [i for i in range(len(self.grads)) if self.needs(i, needs)]
        for i in wanted:
            x = inputs[self.grad_index[i]]
            if not (create_graph and x.requires_grad):
                inputs[self.grad_index[i]] = x.detach().requires_grad_()
        outputs = _as_tuple(self.reference(*inputs))
        pairs = zip((outputs[i] for i in self.differentiable_outputs), grads, strict=True)
        # An output may depend on none of the inputs whose gradients are wanted.
        used = [(output, grad) for output, grad in pairs if output.requires_grad]
        found = torch.autograd.grad(
            [output for output, _ in used],
            [inputs[self.grad_index[i]] for i in wanted],
            [grad for _, grad in used],
            create_graph=create_graph,
            materialize_grads=True,
        )
        result = [grads[0].new_empty(0) for _ in self.grads]
        for i, grad in zip(wanted, found, strict=True):
            result[i] = grad
        return result

    def backward_reference(self, *args):
        grads, inputs, _, needs = self.split_backward(args)
        # The forward decided about precision.
        as_given = torch.autocast(grads[0].device.type, enabled=False)
        with _autograd_reenabled(), as_given:
            found = self.vjp(inputs, grads, needs, create_graph=False)
        # A gradient may be the very tensor that came in; an op must return fresh memory.
        fresh = [
            g.clone() if any(_shares_memory(g, other) for other in grads) else g.contiguous()
            for g in found
        ]
        return fresh[0] if len(fresh) == 1 else tuple(fresh)

    def backward_fake(self, *args):
        grads, inputs, _, needs = self.split_backward(args)
        found = [
            torch.empty_like(inputs[k], memory_format=torch.contiguous_format)
            if self.needs(i, needs)
            else grads[0].new_empty(0)
            for i, k in enumerate(self.grad_index)
        ]
        return found[0] if len(found) == 1 else tuple(found)


def define(
    name: str,
    schema: str,
    reference: Callable,
    *,
    fake: Callable | None,
    grads: Sequence[str],
    saved: Sequence[str] = (),
    gpu: Sequence[str] = (),
    backward: Callable | None = None,
    full_precision: bool = False,
    again: Callable | None = None,
    library: torch.library.Library = LIBRARY,
) -> Op:
    """Declare an op.

    Args:
        name: ``skelops::<name>``; the gradient op is ``skelops::<name>_backward``.
        schema: ``"(Tensor x, ..., bool flag) -> Tensor"``, without default values.
        reference: the op in plain differentiable PyTorch; the truth for every other backend.
        fake: shapes and dtypes of the results (contiguous, like every backend's).
        grads: names of the arguments that have a gradient; none for ops on data.
        saved: names of the outputs the backward receives. All but the first output are
            considered its private notes and carry no gradient when listed here.
        gpu: backends that have a GPU kernel, best first; modules ``skelops.ops.<backend>.<name>``.
        backward: ``backward(inputs, *grad_outputs) -> gradients`` in plain PyTorch for ops whose
            gradient needs no kernel; there is then no ``_backward`` op.
        full_precision: the results are in float32 for half types, in autocast regions too; as
            losses are.
        again: ``again(inputs, saved outputs) -> first output``, much cheaper than the op, for
            who would rather compute it again than keep it, see ``skelops.nn.recompute``.
    """
    op = Op(
        name, schema, reference, fake, tuple(grads), tuple(saved), tuple(gpu), backward,
        full_precision, again, library,
    )  # fmt: skip
    library.define(f"{name}{schema}")
    library.impl(name, reference, "CompositeExplicitAutograd")
    if fake is not None:
        torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
    if op.grads:
        _register_autograd(op)
    if library is LIBRARY:
        OPS[name] = op
    return op


def _register_backward(
    library: torch.library.Library,
    name: str,
    operator: torch._ops.OpOverload,
    setup_context: Callable,
    backward: Callable,
) -> None:
    """``torch.library.register_autograd`` without its walk through the schema at every call,
    which takes longer than a small kernel."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            *inputs, keyset = args
            output = below_autograd(keyset, *inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx, *grads):
            return backward(ctx, *grads)

    def below_autograd(keyset, *args):
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    def autograd(keyset, *args):
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return Function.apply(*args, keyset)
        return below_autograd(keyset, *args)

    library.impl(name, autograd, "Autograd", with_keyset=True)


def _register_autograd(op: Op) -> None:
    is_tensor = ["Tensor" in kind for kind, _ in op.arguments]
    kept = [op.outputs.index(name) for name in op.saved]
    notes = [i for i in range(len(op.outputs)) if i not in op.differentiable_outputs]

    def setup_context(ctx, inputs, output):
        outputs = _as_tuple(output)
        ctx.constants = [None if t else v for t, v in zip(is_tensor, inputs, strict=True)]
        ctx.is_tensor = is_tensor
        tensors = [v for t, v in zip(is_tensor, inputs, strict=True) if t]
        ctx.save_for_backward(*tensors, *[outputs[i] for i in kept])
        ctx.again = again
        # Zeros for the gradients of the backward's notes would only be written, never read.
        ctx.set_materialize_grads(len(op.differentiable_outputs) > 1)
        ctx.mark_non_differentiable(*[outputs[i] for i in notes])

    def unpack(ctx):
        tensors = iter(ctx.saved_tensors)
        inputs = [
            next(tensors) if t else v for t, v in zip(ctx.is_tensor, ctx.constants, strict=True)
        ]
        return inputs, list(tensors)

    def peek(ctx):
        # The backward takes these: under a checkpoint a tensor is unpacked only once.
        ctx.peeked = vars(ctx).get("peeked") or unpack(ctx)
        return ctx.peeked

    make_again = op.again
    again = make_again and (lambda ctx: make_again(*peek(ctx)))

    def backward(ctx, *grad_outputs):
        inputs, saved = vars(ctx).pop("peeked", None) or unpack(ctx)
        grads = [grad_outputs[i] for i in op.differentiable_outputs]
        if grads[0] is None:
            return (None,) * len(ctx.needs_input_grad)
        wanted = ctx.needs_input_grad
        mask = sum(wanted[k] << i for i, k in enumerate(op.grad_index))
        if op.composite_backward is not None:
            found = op.composite_backward(inputs, *grads)
        else:
            found = _as_tuple(op.backward_op(*grads, *inputs, *saved, mask))
        result: list[Tensor | None] = [None] * len(wanted)
        for i, k in enumerate(op.grad_index):
            if wanted[k]:
                result[k] = found[i]
        return tuple(result)

    qualified = f"{op.library.ns}::{op.name}"
    _register_backward(op.library, op.name, op.forward_op, setup_context, backward)
    if not op.has_backward_op:
        return

    op.library.define(f"{op.name}_backward{op.backward_schema}")
    op.library.impl(f"{op.name}_backward", op.backward_reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{qualified}_backward", op.backward_fake, lib=op.library)

    def setup_double(ctx, inputs, output):
        tensors = [v for v in inputs if isinstance(v, Tensor)]
        ctx.constants = [None if isinstance(v, Tensor) else v for v in inputs]
        ctx.is_tensor = [isinstance(v, Tensor) for v in inputs]
        ctx.save_for_backward(*tensors)

    def double_backward(ctx, *grad_grads):
        args, _ = unpack(ctx)
        grads, inputs, _, needs = op.split_backward(args)
        with torch.enable_grad():
            args = [
                a.detach().requires_grad_()
                if isinstance(a, Tensor) and ctx.needs_input_grad[i] and not a.requires_grad
                else a
                for i, a in enumerate(args)
            ]
            grads, inputs, _, needs = op.split_backward(args)
            found = op.vjp(inputs, grads, needs, create_graph=True)
            used = [i for i in range(len(op.grads)) if op.needs(i, needs)]
            sources = [
                i
                for i in range(len(grads) + len(inputs))
                if ctx.needs_input_grad[i] and isinstance(args[i], Tensor)
            ]
            second = torch.autograd.grad(
                [found[i] for i in used],
                [args[i] for i in sources],
                [grad_grads[i] for i in used],
                create_graph=torch.is_grad_enabled(),
                materialize_grads=True,
            )
        result: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for i, grad in zip(sources, second, strict=True):
            result[i] = grad
        return tuple(result)

    _register_backward(
        op.library, f"{op.name}_backward", op.backward_op, setup_double, double_backward
    )
