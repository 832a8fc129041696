"""Replay what published implementations computed: outputs, gradients' norms, input gradients.

    python -m skelops.testing.replay CASE.npz ... [--backend reference] [--device cpu]

A case names the published class and its arguments; what runs it is looked up by these (see
``replays``), never by the file name. Every weight is filled by ``rule_value`` under its published
key, which takes the same map as loading a published checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import skelops
from skelops.models import load_published, published_keys
from skelops.models._published import KeyPairs
from skelops.testing.rule import rule_value

OUTPUT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
# A case notes how far float32 is from float64; a tolerance is at least this many times as much.
NOTED_ERRORS = 5
# Norms below this share of the largest are compared in units of it: a bias in front of a batch
# normalisation has a gradient of rounding errors only.
NORM_FLOOR = 1e-3
# In single precision an activation may fall on the other side of a rectifier's edge, or another
# frame win a maximum, which moves the gradients of a whole network. Such a network has to agree
# within tolerance in double precision.
# Deep networks on a handful of clips may differ there, too, from what was recorded in single
# precision: inputs and parameters that move by this much, a few roundings in single precision, then
# say how far rounding moves gradients.
JITTER = 1e-6
JITTERED_RUNS = 4
WITHIN_SPREADS = 3

ANY = ""  # kind of a case whose class is a description

_KINDS: dict[tuple[str, str], list[tuple[str, Callable[[Case], Replay]]]] = {}


class NotUnderstood(Exception):
    """A case of a kind, or with arguments, that nothing here stands for."""


@dataclass(frozen=True)
class Case:
    """A recorded case: what ran, on what, and what came out."""

    name: str
    meta: Mapping
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def load(cls, path: str | Path) -> Case:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "meta"}
            return cls(Path(path).stem, json.loads(str(file["meta"])), arrays)

    @property
    def repository(self) -> str:
        return self.meta["source"].split()[0].split(":")[0]

    @property
    def kind(self) -> str:
        """The published class, or the function if there is none."""
        name = self.meta["class"]
        source = re.sub(r"\(.*?\)", "", self.meta["source"])
        return source.split()[-1] if name == "Fn" else name

    @property
    def kwargs(self) -> dict:
        return dict(self.meta["kwargs"])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Published key -> shape."""
        return {key: tuple(shape) for key, shape, _ in self.meta["keys"]}

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays ``<prefix>.<name>`` by name."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}

    def value(self, key: str) -> Tensor:
        """One published entry: as kept in the case, else by the rule."""
        kept = self.arrays.get(f"kept.{key}")
        return torch.from_numpy(rule_value(key, self.shapes[key]) if kept is None else kept)

    def state(self) -> dict[str, Tensor]:
        return {key: self.value(key) for key in self.shapes}

    def noted(self, what: str) -> float:
        found = re.search(rf"\b{what} (\d[\d.]*(?:e[-+]?\d+)?)", self.meta.get("note") or "")
        return float(found[1]) if found else 0.0


@dataclass
class Replay:
    """What stands for a case.

    Args:
        call: the case's inputs, in order -> its outputs, in order (or the only one).
        module: holds the weights and is switched between training and evaluation.
        keys: pairs that turn the module's names into the published ones, see ``UNIT_KEYS``.
        own: published names of ``module`` that the case does not have.
        data: floating inputs that carry no gradient here, such as masks; it is not compared.
        gradients: the case's inputs, in order -> what the case has under ``gradin``, for losses
            other than the sum of probed outputs.
        vanishing: published keys of shifts and scales that a normalisation over the batch takes
            away, whose true gradient is 0: it only has to be below ``NORM_FLOOR`` of the largest.
    """

    call: Callable[..., Tensor | tuple[Tensor, ...]]
    module: nn.Module | None = None
    keys: KeyPairs = ()
    own: Sequence[str] = ()
    data: Sequence[str] = ()
    gradients: Callable[..., Mapping[str, Tensor]] | None = None
    vanishing: Sequence[str] = ()


def replays(repository: str, kind: str, file: str = "") -> Callable:
    """Function decorator: ``build(case) -> Replay`` for a class or function of a repository.

    Args:
        repository: "owner/name", as in the case's source.
        kind: name of the published class, or of the function; ``ANY`` for those not named.
        file: end of the source's path, where several files have a class of that name.
    """

    def add(build: Callable[[Case], Replay]) -> Callable[[Case], Replay]:
        _KINDS.setdefault((repository, kind), []).append((file, build))
        return build

    return add


def find(case: Case) -> Replay:
    """Build what stands for the case.

    Raises:
        NotUnderstood: nothing is registered for it, or not for its arguments.
    """
    from skelops.testing import replays as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    words = case.meta["source"].split()[1:]
    named, others = ((case.repository, kind) for kind in (case.kind, ANY))
    for file, build in [*_KINDS.get(named, ()), *_KINDS.get(others, ())]:
        if not file or any(word.endswith(file) for word in words):
            try:
                return build(case)
            except (KeyError, TypeError, ValueError) as error:
                raise NotUnderstood(f"{type(error).__name__}: {error}") from error
    raise NotUnderstood(f"{case.kind} of {case.meta['source']}")


@dataclass
class Result:
    """Largest relative errors of a case and what they may be."""

    output: float
    gradient: float
    output_tolerance: float
    gradient_tolerance: float
    worst: str = ""
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        # Written so that NaN fails.
        return self.output <= self.output_tolerance and self.gradient <= self.gradient_tolerance

    def describe(self) -> str:
        gradients = f"{self.gradient:.1e} (<= {self.gradient_tolerance:.0e})"
        return f"outputs {self.output:.1e} (<= {self.output_tolerance:.0e}) gradients {gradients}"


def run(
    case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32, jitter: int = 0
) -> Result:
    """Replay a case on a device, on the backend in force; ``jitter``, if not 0, is a seed by which
    the inputs and parameters move a little, see ``JITTER``."""
    replay = find(case)
    module = replay.module
    parts = {}
    if module is not None:
        module.published_keys = replay.keys
        report = load_published(module, case.state(), strict=False)
        lacking = [k for k in report.missing if k not in replay.own]
        if lacking or report.unexpected or report.skipped:
            raise NotUnderstood(f"{case.kind} with keys {[*lacking, *report.unexpected][:4]}")
        parts = published_keys(module)
        module.to(device, dtype)
        for child in module.modules():
            if isinstance(child, nn.Dropout):
                child.p = 0.0
    given = case.group("in")
    inputs = [torch.from_numpy(given[name]).to(device) for name in case.meta["input_names"]]
    inputs = [x.to(dtype) if x.dtype == torch.float32 else x for x in inputs]
    if jitter:
        generator = torch.Generator().manual_seed(jitter)

        def moved(x: Tensor) -> Tensor:
            return x * (1 + JITTER * torch.randn(x.shape, generator=generator).to(x))

        inputs = [moved(x) if x.is_floating_point() else x for x in inputs]
        with torch.no_grad():
            for parameter in module.parameters() if module is not None else ():
                parameter.copy_(moved(parameter))

    def outputs(training: bool) -> list[Tensor]:
        if module is not None:
            module.train(training)
        out = replay.call(*inputs)
        return [out] if isinstance(out, Tensor) else list(out)

    names = case.meta["output_names"]
    with torch.no_grad():
        found = dict(zip(names, outputs(training=False), strict=True))
    expected = case.group("out")
    output_error = max(relative(found[name], expected[name]) for name in names)

    errors, gradients = {"": 0.0}, {}
    if replay.gradients is not None:
        for name, gradient in replay.gradients(*inputs).items():
            errors[f"gradin.{name}"] = relative(gradient, case.arrays[f"gradin.{name}"])
    elif case.arrays.get("grad_key") is not None or case.group("gradin") or case.group("gradin_l2"):
        inputs = [
            x.requires_grad_() if x.is_floating_point() and name not in replay.data else x
            for name, x in zip(case.meta["input_names"], inputs, strict=True)
        ]
        loss = sum(
            (y * torch.from_numpy(rule_value(f"probe.{name}", y.shape)).to(y)).sum()
            for name, y in zip(names, outputs(training=True), strict=True)
        )
        loss.backward()
        errors |= norm_errors(case, parts, module, replay.vanishing)
        errors |= input_errors(case, inputs, replay.data)
        gradients = gradients_by_name(case, parts, module, inputs)
    worst = max(errors, key=lambda key: errors[key] if errors[key] == errors[key] else np.inf)
    noted = max(case.noted("grad_l2"), case.noted("gradin"))
    asked = case.noted("rtol")  # where a hard threshold makes jumps
    return Result(
        output_error,
        errors[worst],
        max(OUTPUT_TOLERANCE, NOTED_ERRORS * case.noted("out"), asked),
        max(GRADIENT_TOLERANCE, NOTED_ERRORS * noted, asked),
        worst,
        gradients,
    )


def gradients_by_name(
    case: Case, parts: Mapping, module: nn.Module | None, inputs: Sequence[Tensor]
) -> dict[str, np.ndarray]:
    """Norms by published key, and gradients of the inputs by name."""
    found = {
        name: x.grad.double().cpu().numpy()
        for name, x in zip(case.meta["input_names"], inputs, strict=True)
        if x.grad is not None
    }
    own = {} if module is None else {name: p.grad for name, p in module.named_parameters()}
    for key in case.arrays.get("grad_key", ()):
        gradient = own.get(parts[key].source) if parts else None
        if gradient is not None:
            found[key] = parts[key].of(gradient).double().norm().cpu().numpy()
    return found


def hinges_on_rounding(case: Case, device: str, exact: Result) -> bool:
    """Whether the recorded gradients are no further from the exact ones than ``WITHIN_SPREADS``
    times what those move by when the inputs are rounded otherwise."""
    moved = [run(case, device, torch.float64, seed + 1).gradients for seed in range(JITTERED_RUNS)]
    norms = zip(case.arrays.get("grad_key", ()), case.arrays.get("grad_l2", ()), strict=True)
    recorded = dict(norms) | case.group("gradin")
    largest = {name: float(np.abs(value).max(initial=0)) for name, value in recorded.items()}
    floor = NORM_FLOOR * max(largest.values(), default=1.0)
    for name, expected in recorded.items():
        here = exact.gradients.get(name)
        if here is None or max(largest[name], np.abs(here).max(initial=0)) < floor:
            continue
        spread = max(np.abs(other[name] - here).max(initial=0) for other in moved)
        allowed = WITHIN_SPREADS * spread + exact.gradient_tolerance * largest[name]
        if not np.abs(here - expected).max(initial=0) <= allowed:
            return False
    return True


def relative(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected value."""
    expected = np.asarray(expected, np.float64)
    if tuple(found.shape) != expected.shape:
        return float("inf")
    difference = np.abs(found.detach().double().cpu().numpy() - expected)
    return float(difference.max(initial=0.0) / (np.abs(expected).max(initial=0.0) or 1.0))


def norm_errors(
    case: Case, parts: Mapping, module: nn.Module | None, vanishing: Sequence[str] = ()
) -> dict[str, float]:
    """Relative errors of the gradients' norms, by published key."""
    if module is None or "grad_key" not in case.arrays:
        return {}
    expected = dict(zip(case.arrays["grad_key"].tolist(), case.arrays["grad_l2"], strict=True))
    floor = NORM_FLOOR * max(expected.values(), default=1.0)
    gradients = {name: p.grad for name, p in module.named_parameters()}
    errors = {}
    for key, norm in expected.items():
        gradient = gradients.get(parts[key].source)
        found = 0.0 if gradient is None else parts[key].of(gradient).double().norm().item()
        if key in vanishing:
            errors[key] = 0.0 if max(found, norm) < floor else float("inf")
            continue
        errors[key] = abs(found - norm) / max(norm, floor)
    return errors


def input_errors(
    case: Case, inputs: Sequence[Tensor], data: Sequence[str] = ()
) -> dict[str, float]:
    """Relative errors of the input gradients, in whichever form the case has them."""
    errors = {}
    for name, x in zip(case.meta["input_names"], inputs, strict=True):
        if not x.is_floating_point() or name in data:
            continue
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        stride = case.meta.get("gradin_stride", 1)
        forms = {
            "gradin": gradient,
            "gradin_sub": gradient.flatten()[::stride],
            "gradin_l2": gradient.double().norm(),
        }
        for form, value in forms.items():
            expected = case.arrays.get(f"{form}.{name}")
            if expected is not None:
                errors[f"{form}.{name}"] = relative(value.reshape(expected.shape), expected)
    return errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: one line per case; 0 if all are reproduced."""
    parser = argparse.ArgumentParser(prog="skelops.testing.replay", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.npz")
    parser.add_argument("--backend", help="force one backend; by default each op takes its best")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    backend = skelops.use_backend(options.backend) if options.backend else contextlib.nullcontext()
    failed = 0
    with backend, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for path in options.cases:
            try:
                case = Case.load(path)
                result = run(case, options.device)
                exact, unstable = None, False
                if not result.ok and result.output <= result.output_tolerance:
                    # Triton and CUDA kernels compute in single precision only.
                    double = (
                        options.backend in (None, "cpu", "reference") and options.device == "cpu"
                    )
                    with contextlib.nullcontext() if double else skelops.use_backend("reference"):
                        exact = run(case, options.device, torch.float64)
                        if not exact.ok and exact.output <= exact.output_tolerance:
                            unstable = hinges_on_rounding(case, options.device, exact)
            except NotUnderstood as reason:
                failed += 1
                print(f"{path.stem:36} not understood: {reason}")
                continue
            except Exception as error:
                failed += 1
                print(f"{path.stem:36} FAIL with {type(error).__name__}: {error}")
                continue
            line = f"{path.stem:36} {result.describe()}"
            if exact is not None:
                line += f"; in float64 {exact.describe()}"
            if unstable:
                line += ", as far as rounding moves them"
            ok = unstable or (result if exact is None else exact).ok
            failed += not ok
            print(line, "ok" if ok else f"FAIL at {result.worst}")
    return 1 if failed else 0


if __name__ == "__main__":
    # Kinds register with the module of this name, which is not the one that runs here.
    sys.exit(importlib.import_module("skelops.testing.replay").main())
