"""The contract bites: toys that are broken in one way each are rejected by the check's name."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skelops import _check
from skelops._library import define
from skelops.testing.cases import Case
from skelops.testing.contract import CHECKS, ContractError, check, run_contract

LIBRARY = torch.library.Library("skelops_toys", "DEF")
SCHEMA = "(Tensor x, Tensor w) -> Tensor"
SAVING = "(Tensor x, Tensor w) -> (Tensor out, Tensor root)"
_numbers = itertools.count()


def reference(x, w):
    """A scaled, positive function of each element, summed over the last axis."""
    return (torch.exp(-x * x) * w).sum(-1)


def reference_saving(x, w):
    root = torch.exp(-x * x)
    return (root * w).sum(-1), root.detach().clone()


def fake(x, w):
    return x.new_empty(x.shape[:-1])


def fake_saving(x, w):
    return x.new_empty(x.shape[:-1]), torch.empty_like(x, memory_format=torch.contiguous_format)


def build(draw, N=2, C=3, V=4, scale=1.0):
    return draw.normal(N, C, V, scale=scale), draw.normal(V)


def wide(x):
    return x.double() if x.dtype == torch.float64 else x.float()


def kernel(x, w):
    return (torch.exp(-(wide(x) ** 2)) * wide(w)).sum(-1).to(x.dtype)


def kernel_saving(x, w):
    root = torch.exp(-(wide(x) ** 2))
    return (root * wide(w)).sum(-1).to(x.dtype), root.to(x.dtype).contiguous()


def gradients(grad, x, w, root):
    g = wide(grad)[..., None]
    dx = g * root * wide(w) * -2 * wide(x)
    return dx.to(x.dtype).contiguous(), (g * root).sum((0, 1)).to(w.dtype)


def kernel_backward(grad, x, w, needs):
    found = gradients(grad, x, w, torch.exp(-(wide(x) ** 2)))
    return tuple(f if needs >> i & 1 else x.new_empty(0) for i, f in enumerate(found))


def kernel_backward_saving(grad, x, w, root, needs):
    found = gradients(grad, x, w, wide(root))
    return tuple(f if needs >> i & 1 else x.new_empty(0) for i, f in enumerate(found))


def toy(forward=None, backward=None, saving=False, scale=1.0, V=4, call=lambda f, x, w: f(x, w),
        fake=fake_saving, plain_fake=fake):  # fmt: skip
    """An op with these CPU kernels, and its case; sound where nothing is given."""
    name = f"toy{next(_numbers)}"
    if saving:
        op = define(name, SAVING, reference_saving, fake=fake, grads=("x", "w"), saved=("root",),
                    library=LIBRARY)  # fmt: skip
    else:
        op = define(name, SCHEMA, reference, fake=plain_fake, grads=("x", "w"), library=LIBRARY)
    default = (kernel_saving, kernel_backward_saving) if saving else (kernel, kernel_backward)
    LIBRARY.impl(name, forward or default[0], "CPU")
    LIBRARY.impl(f"{name}_backward", backward or default[1], "CPU")

    def public(x, w):
        x, w = _check.autocast(x, w)
        out = call(op.forward_op, x, w)
        return out[0] if saving else out

    return op, Case("toy", build, dict(V=V, scale=scale), small=V < 5, public=public)


def rejected(what, *args, **kwargs):
    op, case = toy(*args, **kwargs)
    with pytest.raises(ContractError, match=rf"^{op.name}\[cpu\] toy: {what}: ") as caught:
        check(op, "cpu", case, what)
    return str(caught.value)


@pytest.mark.parametrize("saving", [False, True])
def test_sound_toy_passes(saving):
    op, case = toy(saving=saving)
    run_contract(op, ["cpu"], [case, replace(case, name="longer", dims={"V": 100}, small=False)])


def test_no_fake():
    assert "no fake" in rejected("fake", plain_fake=None)


def test_run_contract_names_missing_parts():
    op, case = toy(plain_fake=None)
    with pytest.raises(ContractError, match=f"{op.name}: no fake"):
        run_contract(op, ["cpu"], [case])
    with pytest.raises(ContractError, match=f"no cases registered for op {op.name}"):
        run_contract(op, ["cpu"])


@pytest.mark.parametrize(
    "wrong, named",
    [
        (lambda x, w: x.new_empty(x.shape), "shape"),
        (lambda x, w: x.new_empty(x.shape[:-1], dtype=torch.float16), "dtype"),
        (lambda x, w: x.new_empty(x.shape[1], x.shape[0]).T, "strides"),
    ],
)
def test_wrong_fake(wrong, named):
    assert f"the fake has {named}" in rejected("fake", plain_fake=wrong)
    rejected("opcheck", plain_fake=wrong)


def test_fake_that_reads_data():
    rejected("fake", plain_fake=lambda x, w: x.new_empty(x.shape[0] + (x.sum().item() > 1e9)))


def test_wrong_result():
    rejected("forward", lambda x, w: kernel(x, w) * 1.0001)


def test_wrong_result_dtype():
    rejected("forward", lambda x, w: kernel(x, w).float())


def test_wrong_gradient():
    def backward(grad, x, w, needs):
        return tuple(1.01 * g for g in kernel_backward(grad, x, w, needs))

    rejected("gradient", backward=backward)
    rejected("gradcheck", backward=backward)


def test_reference_without_second_derivative():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.exp(-x * x)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * torch.exp(-x * x) * -2 * x

    op = define(
        "toy_once", SCHEMA, lambda x, w: (Once.apply(x) * w).sum(-1), fake=fake, grads=("x", "w"),
        library=LIBRARY,
    )  # fmt: skip
    with pytest.raises(ContractError, match="gradgradcheck: "):
        check(op, "cpu", Case("toy", build, small=True), "gradgradcheck")


def test_gradient_that_ignores_strides_of_grad_output():
    def backward(grad, x, w, needs):
        flat = grad.as_strided(grad.shape, (grad.shape[1], 1)) if grad.stride(0) else grad
        return kernel_backward(flat, x, w, needs)

    assert "grad_output" in rejected("strides", backward=backward)


def test_gradient_that_reads_past_expanded_grad_output():
    def backward(grad, x, w, needs):
        scaled = grad * 2 if 0 in grad.stride() else grad
        return kernel_backward(scaled, x, w, needs)

    assert "expanded grad_output" in rejected("strides", backward=backward)


def test_input_taken_for_contiguous():
    def forward(x, w):
        _, c, v = x.shape
        return kernel(x if 0 in x.stride() else x.as_strided(x.shape, (c * v, v, 1)), w)

    assert "transposed inputs" in rejected("strides", forward)


def test_write_into_input():
    def forward(x, w):
        out = kernel(x, w)
        x.mul_(1.5)
        return out

    assert "changes x" in rejected("inputs_untouched", forward)


def test_write_into_grad_output():
    def backward(grad, x, w, needs):
        found = kernel_backward(grad, x, w, needs)
        grad.mul_(2)
        return found

    assert "changes grad_out" in rejected("inputs_untouched", backward=backward)


def test_write_into_saved_tensor():
    def backward(grad, x, w, root, needs):
        found = kernel_backward_saving(grad, x, w, root, needs)
        root.mul_(0.5)
        return found

    assert "changes saved root" in rejected("inputs_untouched", backward=backward, saving=True)
    rejected("retain_graph", backward=backward, saving=True)


def test_uninitialised_memory():
    def forward(x, w):
        out = torch.empty_like(x[..., 0]).contiguous()
        out[:, 1:] = kernel(x, w)[:, 1:]
        first = out[:, :1]
        first.copy_(torch.where(first.isnan(), first, kernel(x, w)[:, :1]))
        return out

    assert "uninitialised" in rejected("poison", forward)


def test_nondeterministic_backward():
    def backward(grad, x, w, needs):
        return tuple(g * (1 + 1e-6 * torch.rand(())) for g in kernel_backward(grad, x, w, needs))

    assert "second run" in rejected("deterministic", backward=backward)


def test_backward_that_depends_on_the_threads():
    def backward(grad, x, w, needs):
        by_threads = 1 + 1e-6 * torch.get_num_threads()
        return tuple(g * by_threads for g in kernel_backward(grad, x, w, needs))

    assert "two threads" in rejected("deterministic", backward=backward)


def test_unwanted_gradient():
    def backward(grad, x, w, needs):
        return kernel_backward(grad, x, w, 3)

    assert "only x wanted: grad of w" in rejected("needs", backward=backward)


def test_gradient_that_depends_on_the_others():
    def backward(grad, x, w, needs):
        return tuple(g * (1 if needs == 3 else 0.9) for g in kernel_backward(grad, x, w, needs))

    rejected("needs", backward=backward)


def accumulate(x, w, dtype):
    """The sum of the kernel in a narrow type."""
    terms = (torch.exp(-(wide(x) ** 2)) * wide(w)).to(dtype)
    out = terms[..., 0]
    for v in range(1, terms.shape[-1]):
        out = out + terms[..., v]
    return out.to(x.dtype).contiguous()


def test_bfloat16_accumulation():
    def forward(x, w):
        return accumulate(x, w, x.dtype)

    assert "torch.bfloat16" in rejected("forward", forward, V=200)


def test_float16_overflow():
    def reference(x, w):
        return x.mean(-1) * w[0]

    def forward(x, w):
        x = x if x.dtype == torch.float16 else wide(x)
        total = x[..., 0]
        for v in range(1, x.shape[-1]):
            total = total + x[..., v]
        return (total / x.shape[-1] * w[0]).to(w.dtype)

    op = define("toy_mean", SCHEMA, reference, fake=fake, grads=("x", "w"), library=LIBRARY)
    LIBRARY.impl(op.name, forward, "CPU")
    case = Case("toy", lambda draw, N=2: (draw.normal(N, 3, 64, mean=5e3), draw.normal(1)))
    with pytest.raises(ContractError, match=r"forward: out in torch.float16: error inf"):
        check(op, "cpu", case, "forward")


def test_output_aliases_input():
    op = define(
        "toy_alias", "(Tensor x) -> Tensor", lambda x: x * 1, fake=lambda x: torch.empty_like(x),
        grads=("x",), library=LIBRARY,
    )  # fmt: skip
    LIBRARY.impl(op.name, lambda x: x, "CPU")
    case = Case("toy", lambda draw, N=2: (draw.normal(N, 3),))
    with pytest.raises(ContractError, match="aliasing: out aliases"):
        check(op, "cpu", case, "aliasing")


def test_gradient_aliases_input():
    def backward(grad, x, w, needs):
        return x, w

    rejected("aliasing", backward=backward)


def test_empty_batch():
    def forward(x, w):
        assert len(x), "nothing to do"
        return kernel(x, w)

    assert "nothing to do" in rejected("empty", forward)

    def backward(grad, x, w, needs):
        return tuple(g / len(x) if len(x) else g + float("nan")
                     for g in kernel_backward(grad, x, w, needs))  # fmt: skip

    assert "grad of w is not zero" in rejected("empty", backward=backward)


def test_autocast_without_a_policy():
    assert "result of torch.float32" in rejected(
        "autocast", call=lambda f, x, w: f(x.float(), w.float())
    )


def test_graph_break():
    rejected("compile", call=lambda f, x, w: f(x, w) if x.sum().item() > 0 else f(-x, w))


def test_recompiles():
    def call(f, x, w):
        return f(x, w) * sum(1 for _ in range(x.shape[0]))

    assert "graphs for batches" in rejected("compile", call=call)


def test_every_check_has_a_toy():
    source = Path(__file__).read_text()
    assert [c for c in CHECKS if f'"{c}"' not in source] == []
