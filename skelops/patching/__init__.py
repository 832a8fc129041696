"""Speed up a model of somebody else in place: ``patch(model)`` and ``unpatch(model)``."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from skelops.patching.forms import FORMS, Form

__all__ = ["PatchReport", "patch", "unpatch"]

TOLERANCE = 1e-6


class Replaced(NamedTuple):
    """A module that now runs fused: its name in the model, its class, and the form it has."""

    name: str
    module: str
    form: str


class Left(NamedTuple):
    """A module that runs as before: its name in the model, its class, and why."""

    name: str
    module: str
    reason: str


class PatchReport(NamedTuple):
    """What ``patch`` did, module by module."""

    replaced: list[Replaced]
    left: list[Left]

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} modules run fused, {len(self.left)} as before"]
        lines += [f"  fused   {r.name or '(model)'} ({r.module}): {r.form}" for r in self.replaced]
        lines += [f"  as was  {r.name or '(model)'} ({r.module}): {r.reason}" for r in self.left]
        return "\n".join(lines)


def patch(model: nn.Module, *, verify: bool = True) -> PatchReport:
    """Run the modules of a foreign model that skelops knows by its fused ops, in place.

    A module is recognised by what it is made of, not by where its class comes from: units and
    blocks of CTR-GCN (official and PYSKL), 2s-AGCN, AAGCN, ST-GCN (yysijie and PYSKL), ST-GCN++,
    PSUMNet and Hyper-GCN, their multi-scale temporal convolutions, and attention with one qkv
    layer (MAMP, timm). Parameters, buffers, ``state_dict`` keys, optimizers and hooks on whole
    modules stay as they are; only ``forward`` changes. Hooks on a part of a fused module (a
    ``BatchNorm2d`` within a unit) do not fire any more.

    Before a module is replaced a copy of it with random parameters runs both ways on a CPU in
    float64: outputs in evaluation, with and without gradients, and in training, gradients and
    running statistics have to agree within 1e-6 of their largest entry, else the module is left
    alone and named with the difference.

    Args:
        model: any module.
        verify: False skips the comparison.

    Returns:
        PatchReport: what was replaced, what was left and why; ``print`` it.

    Example:
        >>> report = patch(model)
        >>> print(report)
        20 modules run fused, 2 as before
        >>> unpatch(model)
    """
    replaced: list[Replaced] = []
    left: list[Left] = []
    for name, module in reversed(list(model.named_modules())):  # Children before their parent.
        kind = type(module)
        form, reason = _recognise(module)
        if form is not None and verify:
            reason = _difference(module, form)
        if reason is not None:
            left.append(Left(name, kind.__name__, reason))
        elif form is not None:
            module.__class__ = _fused_class(kind, form)
            replaced.append(Replaced(name, kind.__name__, form.name))
    known = [row.name for row in (*replaced, *left)]
    for name, module in model.named_modules():
        holds = next(module.parameters(recurse=False), None) is not None
        if holds and not any(k in ("", name) or name.startswith(f"{k}.") for k in known):
            left.append(Left(name, type(module).__name__, "no form that skelops knows"))
    return PatchReport(replaced[::-1], sorted(left))


def unpatch(model: nn.Module) -> int:
    """Undo ``patch`` -> number of modules that run as before again."""
    fused = [m for m in model.modules() if hasattr(m, "_skelops_form")]
    for module in fused:
        module.__class__ = type(module).__mro__[1]
    return len(fused)


def _recognise(module: nn.Module) -> tuple[Form | None, str | None]:
    """The form of a module, or why it has none although its class is called like one."""
    if hasattr(module, "_skelops_form"):
        return None, None
    lacking = {form: form.lacking(module) for form in FORMS}
    for form, names in lacking.items():
        if not names:
            return form, None
    called = [form for form in FORMS if type(module).__name__ in form.class_names]
    if not called:
        return None, None
    nearest = min(called, key=lambda form: len(lacking[form]))
    return None, f"like the {nearest.name}, but without {', '.join(lacking[nearest])}"


@functools.cache
def _fused_class(kind: type[nn.Module], form: Form) -> type[nn.Module]:
    """A subclass that runs the form's forward; it copies and pickles as the class below it."""

    def reduce(module: nn.Module, protocol: int) -> tuple:
        return _rebuild, (kind, FORMS.index(form)), module.__dict__

    names = {
        "forward": form.forward,
        "_skelops_form": form.name,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__reduce_ex__": reduce,
    }
    return type(kind.__name__, (kind,), names)


def _rebuild(kind: type[nn.Module], index: int) -> nn.Module:
    fused = _fused_class(kind, FORMS[index])
    return fused.__new__(fused)


def _difference(module: nn.Module, form: Form) -> str | None:
    """What the form computes otherwise than the module's own forward, or None."""
    try:
        with torch.random.fork_rng(devices=[]), _cuda_is_cpu():
            torch.manual_seed(0)
            theirs = _randomised(module)
            ours = copy.deepcopy(theirs)
            ours.__class__ = _fused_class(type(module), form)
            inputs = [torch.randn(shape, dtype=torch.float64) for shape in form.probe(module)]
            for training in (False, True):
                expected = _results(theirs.train(training), inputs)
                found = _results(ours.train(training), inputs)
                if expected.keys() != found.keys():
                    return f"like the {form.name}, but it returns something else"
                for name, value in expected.items():
                    error = _relative(value, found[name])
                    if not error <= TOLERANCE:
                        return f"like the {form.name}, but {name} differs by {error:.1e}"
    except Exception as error:
        return f"like the {form.name}, but {type(error).__name__}: {error}"
    return None


@contextmanager
def _cuda_is_cpu() -> Iterator[None]:
    """Published code that moves a graph to the features' GPU by hand then runs on a CPU too."""
    with mock.patch.object(Tensor, "cuda", lambda self, *args, **kwargs: self):
        yield


def _randomised(module: nn.Module) -> nn.Module:
    """A copy in float64 on the CPU in which nothing is zero, one or dropped."""
    copied = copy.deepcopy(module).double().cpu()
    for child in copied.modules():
        for name, value in vars(child).items():
            if isinstance(value, Tensor):  # Neither parameter nor buffer: ``double`` missed it.
                setattr(child, name, value.detach().double().cpu())
        if isinstance(child, nn.Dropout):
            child.p = 0.0
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.running_mean.normal_()
            child.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        for p in copied.parameters():
            if p.dim() > 1:
                p.normal_(0, p[0].numel() ** -0.5)
            else:
                p.uniform_(0.25, 1)
    return copied


def _results(module: nn.Module, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Outputs, gradients and buffers by name."""
    leaves = [x.clone().requires_grad_() for x in inputs]

    def run() -> tuple[Tensor, ...]:
        # Not the leaves themselves: a module may work in place on what it is given.
        outputs: Any = module(*(leaf * 1 for leaf in leaves))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    outputs = run()
    loss = sum((y * torch.arange(y.numel()).view(y.shape).sin()).sum() for y in outputs)
    named = dict(module.named_parameters())
    wanted = {f"the gradient of input {i}": x for i, x in enumerate(leaves)}
    wanted |= {f"the gradient of {n}": p for n, p in named.items() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    results = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    if not module.training:  # Units then run by other ops.
        with torch.no_grad():
            results |= {f"output {i} without gradients": y.detach() for i, y in enumerate(run())}
    results |= {
        name: torch.zeros_like(x) if grad is None else grad
        for (name, x), grad in zip(wanted.items(), grads, strict=True)
    }
    return results | {name: b.clone() for name, b in module.named_buffers()}


def _relative(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
