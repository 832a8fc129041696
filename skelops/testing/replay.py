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
from dataclasses import dataclass, field, replace
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
# frame win a maximum, which moves the gradients of a whole network by this much at most. Such a
# network has to agree within tolerance in double precision.
KINK = 0.05

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
    """

    call: Callable[..., Tensor | tuple[Tensor, ...]]
    module: nn.Module | None = None
    keys: KeyPairs = ()
    own: Sequence[str] = ()
    data: Sequence[str] = ()
    gradients: Callable[..., Mapping[str, Tensor]] | None = None


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
            except (KeyError, ValueError) as error:
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
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)  # as found

    @property
    def ok(self) -> bool:
        # Written so that NaN fails.
        return self.output <= self.output_tolerance and self.gradient <= self.gradient_tolerance

    @property
    def on_a_kink(self) -> bool:
        """Right outputs, and gradients that may differ by an activation on its edge only."""
        return self.output <= self.output_tolerance and self.gradient <= KINK

    def describe(self) -> str:
        gradients = f"{self.gradient:.1e} (<= {self.gradient_tolerance:.0e})"
        return f"outputs {self.output:.1e} (<= {self.output_tolerance:.0e}) gradients {gradients}"


def run(case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Result:
    """Replay a case on a device, on the backend in force."""
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
        gradients = found_norms(case, parts, module) | found_inputs(case, inputs, replay.data)
        errors |= gradient_errors(gradients, recorded_gradients(case))
    worst = max(errors, key=lambda key: errors[key] if errors[key] == errors[key] else np.inf)
    noted = max(case.noted("grad_l2"), case.noted("gradin"))
    return Result(
        output_error,
        errors[worst],
        max(OUTPUT_TOLERANCE, NOTED_ERRORS * case.noted("out")),
        max(GRADIENT_TOLERANCE, NOTED_ERRORS * noted),
        worst,
        gradients,
    )


def relative(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected value."""
    expected = np.asarray(expected, np.float64)
    if tuple(found.shape) != expected.shape:
        return float("inf")
    difference = np.abs(found.detach().double().cpu().numpy() - expected)
    return float(difference.max(initial=0.0) / (np.abs(expected).max(initial=0.0) or 1.0))


def found_norms(case: Case, parts: Mapping, module: nn.Module | None) -> dict[str, np.ndarray]:
    """Norms of the gradients that the case has, by published key."""
    if module is None or "grad_key" not in case.arrays:
        return {}
    gradients = {name: p.grad for name, p in module.named_parameters()}
    norms = {}
    for key in case.arrays["grad_key"].tolist():
        gradient = gradients.get(parts[key].source)
        norm = 0.0 if gradient is None else parts[key].of(gradient).double().norm().item()
        norms[key] = np.array(norm)
    return norms


def found_inputs(
    case: Case, inputs: Sequence[Tensor], data: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Input gradients, in whichever forms the case has them."""
    found = {}
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
                found[f"{form}.{name}"] = value.reshape(expected.shape).double().cpu().numpy()
    return found


def recorded_gradients(case: Case) -> dict[str, np.ndarray]:
    """What the case has of gradients, under the names of ``found_norms`` and ``found_inputs``."""
    keys, norms = (case.arrays.get(name, np.empty(0)) for name in ("grad_key", "grad_l2"))
    return dict(zip(keys.tolist(), norms, strict=True)) | {
        name: value for name, value in case.arrays.items() if name.startswith("gradin")
    }


def gradient_errors(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Relative errors of what was found; of norms not below a share of the largest."""
    norms = [float(expected[key]) for key in found if not key.startswith("gradin")]
    floor = NORM_FLOOR * max(norms, default=1.0)
    return {
        key: relative(torch.from_numpy(value), expected[key])
        if key.startswith("gradin")
        else abs(float(value) - float(expected[key])) / max(float(expected[key]), floor)
        for key, value in found.items()
    }


def within_single_precision(case: Case, single: Result, double: Result) -> Result:
    """The result in double precision, judged as one of a case that was recorded in single.

    A case that has no note of how far single precision is from double says nothing about kinks. It
    may be as many times that far from the exact gradients as a noted error, as measured here.
    """
    if case.noted("grad_l2") or case.noted("gradin") or not double.on_a_kink:
        return double
    spread = max(gradient_errors(single.gradients, double.gradients).values(), default=0.0)
    tolerance = max(double.gradient_tolerance, NOTED_ERRORS * spread)
    return replace(double, gradient_tolerance=min(tolerance, KINK))


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
                exact = None
                if not result.ok and result.on_a_kink:
                    # Triton and CUDA kernels compute in single precision only.
                    double = (
                        options.backend in (None, "cpu", "reference") and options.device == "cpu"
                    )
                    with contextlib.nullcontext() if double else skelops.use_backend("reference"):
                        exact = run(case, options.device, torch.float64)
                    exact = within_single_precision(case, result, exact)
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
            ok = (result if exact is None else exact).ok
            failed += not ok
            print(line, "ok" if ok else f"FAIL at {result.worst}")
    return 1 if failed else 0


if __name__ == "__main__":
    # Kinds register with the module of this name, which is not the one that runs here.
    sys.exit(importlib.import_module("skelops.testing.replay").main())
