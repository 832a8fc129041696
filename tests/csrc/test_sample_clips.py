"""The CUDA kernels of sample_clips, executed on the CPU thread by thread, against the reference."""

import ctypes

import pytest
import torch

from skelops._library import OPS
from skelops.ops.cuda import sample_clips as cuda
from skelops.ops.sample_clips import (
    ANGLE,
    MOTION,
    MOTION_MEAN,
    NATIVE,
    SCORE_MEAN,
    _fake,
    _reference,
)
from skelops.testing.cases import cases_for

STREAMS = [0, 0, MOTION, MOTION]
LENGTHS = (11, 1, 23)
TENSORS = (
    "xyz", "bounds", "frame", "blend", "affine", "parent", "part", "person", "convert",
    "convert_weight", "order", "branch", "blur", "noise", "noise_std", "draw",
)  # fmt: skip
CASES = {
    "joints": dict(),
    "streams": dict(kinds=STREAMS),
    "plain_kinds": dict(kinds=[k for k in range(16) if not k & NATIVE], C=4),
    "native_kinds": dict(kinds=[0, *(k for k in range(16) if k & NATIVE)], C=4),
    "mean_kinds": dict(kinds=[0, *(k for k in range(16, 32) if not k & NATIVE)], C=4),
    "native_mean_kinds": dict(kinds=[0, *(k for k in range(16, 32) if k & NATIVE)], C=4),
    "native_mean_flat": dict(kinds=[MOTION_MEAN | NATIVE, SCORE_MEAN], C=3, D=2, V=17, T=40),
    "native_only": dict(kinds=[NATIVE, NATIVE | MOTION], C=4),
    "scores": dict(C=4, kinds=[SCORE_MEAN, 0, SCORE_MEAN | MOTION | ANGLE]),
    "flat": dict(D=2, C=3, V=17, M=1, kinds=STREAMS),
    "line": dict(D=1, C=1, kinds=[ANGLE, 0]),
    "unblended": dict(blended=False, kinds=[0, NATIVE]),
    "persons": dict(person=3, kinds=STREAMS),
    "order": dict(order=True, branch=True, kinds=STREAMS),
    "convert": dict(convert=(17, 3), order=True, branch=True, kinds=STREAMS),
    "part": dict(part=7, kinds=[ANGLE, MOTION, NATIVE]),
    "missing_move": dict(keep_missing=False, person=3),
    "box": dict(unit_box=True, branch=True, kinds=STREAMS),
    "box_of_all": dict(unit_box=True, keep_missing=False, convert=(5, 2), person=3),
    "explicit_noise": dict(noise=True, kinds=STREAMS),
    "noise": dict(noise_std=True, kinds=STREAMS, T=67),
    "both_noises": dict(noise=True, noise_std=True, person=3, part=9),
    "blur": dict(blur=15, kinds=STREAMS, T=40),
    "short_blur": dict(blur=1, D=2, C=3, kinds=[0]),
    "long_blur": dict(blur=9, T=3, C=4, kinds=[SCORE_MEAN | MOTION]),
    "everything": dict(
        C=4, T=21, convert=(17, 2), part=11, person=3, order=True, branch=True, blur=5, noise=True,
        noise_std=True, unit_box=True, kinds=[SCORE_MEAN, ANGLE, MOTION],
    ),
    "native_everything": dict(
        C=4, T=21, convert=(17, 2), part=11, person=3, order=True, branch=True,
        kinds=[SCORE_MEAN | NATIVE, ANGLE, MOTION | NATIVE, MOTION],
    ),
    "one_frame": dict(T=1, kinds=STREAMS),
    "one_joint": dict(T=5, V=1, M=1, kinds=STREAMS),
    "crowd": dict(T=9, V=133, M=8, C=4, kinds=[0, SCORE_MEAN | MOTION], samples=1),
    "noisy_crowd": dict(
        T=9, V=133, M=5, C=3, D=2, kinds=[0, MOTION], samples=1, blur=5, noise=True, noise_std=True
    ),
}  # fmt: skip


def arguments(
    dtype=torch.float32, out=None, *, D=3, C=3, V=25, M=2, T=13, kinds=(0,), samples=3,
    blended=True, person=None, convert=None, order=False, branch=False, part=None, blur=None,
    noise=False, noise_std=False, keep_missing=True, unit_box=False,
):  # fmt: skip
    """Arguments of the op by name: clips with missing joints and persons, windows with gaps."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    compute = torch.float64 if dtype == torch.float64 else torch.float32
    ends = torch.tensor(LENGTHS).cumsum(0)
    bounds = torch.stack([ends - torch.tensor(LENGTHS), ends], 1)
    F, N = int(ends[-1]), samples
    xyz = normal(F, M, V, C) * (normal(F, M, V, 1) > -1)
    xyz[:, 1:] *= normal(F, M - 1, 1, 1) > 0
    bounds = bounds[integers(0, 3, N)] if samples != 3 else bounds
    frame = bounds[:, :1] + integers(0, 1000, N, T) % (bounds[:, 1:] - bounds[:, :1])
    frame[:, T // 2] = -1 if T > 3 else frame[:, T // 2]
    layout = V if convert is None else convert[0]
    width, persons = part or layout, person or M
    return dict(
        xyz=xyz.to(dtype),
        bounds=bounds,
        frame=frame,
        blend=normal(N, T).abs().fmod(1).to(compute) * blended * (normal(N, T) > -1),
        affine=normal(N, 2, D, D + 1).to(compute),
        parent=torch.where(
            torch.arange(len(kinds))[:, None] % 2 > 0, integers(-1, layout, len(kinds), width), -1
        ),
        kinds=list(kinds),
        part=integers(0, layout, part) if part else None,
        person=integers(-1, M, N, person) if person else None,
        convert=integers(0, V, *convert) if convert else None,
        convert_weight=normal(*convert).to(compute) if convert else None,
        order=torch.stack([torch.randperm(layout, generator=generator) for _ in range(N)])
        if order
        else None,
        branch=integers(0, 3, N, layout).to(torch.uint8) if branch else None,
        blur=normal(N, blur).softmax(1).to(compute) if blur else None,
        noise=normal(N, D, T, layout, persons).to(compute) if noise else None,
        noise_std=(normal(N, D).abs() * torch.arange(D).clamp(max=1)).to(compute)
        if noise_std
        else None,
        draw=integers(0, 2**40, N) if noise_std else None,
        seed=-(2**40) + 7,
        epoch=3,
        stream=5,
        keep_missing=keep_missing,
        unit_box=unit_box,
        dtype=out or compute,
    )


def described(args):
    """Pointers and sizes of a call as the emulator's launcher takes them."""
    F, M, V, C = args["xyz"].shape
    layout = V if args["convert"] is None else len(args["convert"])
    persons = M if args["person"] is None else args["person"].shape[1]
    sizes = [F, M, V, C, args["affine"].shape[2], args["frame"].shape[1], layout, persons]
    sizes += [args["parent"].shape[1], len(args["kinds"])]
    sizes += [1 if args["convert"] is None else args["convert"].shape[1]]
    sizes += [0 if args["blur"] is None else args["blur"].shape[1]]
    packed = sum(kind << 5 * s for s, kind in enumerate(args["kinds"]))
    sizes += [packed - (packed >> 63 << 64), args["seed"], args["epoch"], args["stream"]]
    sizes += [args["keep_missing"]]
    tensors = [None if args[name] is None else args[name].data_ptr() for name in TENSORS]
    return (ctypes.c_void_p * len(tensors))(*tensors), (ctypes.c_longlong * len(sizes))(*sizes)


def emulated(kernels, args):
    out = torch.full_like(_fake(**args), torch.nan)
    dtypes = f"{args['xyz'].dtype}_{out.dtype}".replace("torch.", "")
    pointers, sizes = described(args)
    samples = ctypes.c_longlong(len(args["frame"]))
    box = ctypes.c_bool(args["unit_box"])
    getattr(kernels, f"sample_{dtypes}")(
        pointers, sizes, samples, box, ctypes.c_void_p(out.data_ptr())
    )
    return out


def tiles(kernels, args, samples):
    """Whether a tile fits, its bytes of shared memory, tiles of frames and of persons."""
    found = (ctypes.c_int * 4)()
    name = str(args["xyz"].dtype).removeprefix("torch.")
    getattr(kernels, f"tiles_{name}")(*described(args), ctypes.c_longlong(samples), found)
    return tuple(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_reference(kernels, case, dtype):
    args = arguments(dtype, **CASES[case])
    assert cuda.supports(**args) is None
    got = emulated(kernels, args)
    exact = {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
             for k, v in args.items()}  # fmt: skip
    expected = _reference(**exact | {"dtype": torch.float64})
    # arccos turns the rounding of a cosine near one into its root.
    angles = any(kind & ANGLE for kind in args["kinds"])
    tolerance = torch.finfo(dtype).eps * 200
    torch.testing.assert_close(
        got.double(), expected, rtol=tolerance, atol=tolerance**0.5 if angles else tolerance
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("case", cases_for("sample_clips"), ids=str)
def test_contract_cases_in_any_layout(kernels, case, dtype):
    names = [name for _, name in OPS["sample_clips"].arguments]
    given = case.make(dtype)
    args = dict(zip(names, cuda.prepared(*given), strict=True)) | {"dtype": torch.float32}
    expected = _reference(*given[:-1], torch.float32)
    angles = any(kind & ANGLE for kind in args["kinds"])
    atol = 2e-3 if angles else 1e-5 * expected.abs().amax().item()
    torch.testing.assert_close(emulated(kernels, args), expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("stored, result", [
    (torch.float16, torch.float32), (torch.float32, torch.float16)
])  # fmt: skip
def test_half_types(kernels, stored, result):
    args = arguments(stored, result, **CASES["everything"])
    got, expected = emulated(kernels, args), _reference(**args)
    assert got.dtype == expected.dtype == result
    tolerance = 2 * torch.finfo(result).eps if result == torch.float16 else 1e-4
    torch.testing.assert_close(got.float(), expected.float(), rtol=tolerance, atol=1e-2)


def test_noise_does_not_depend_on_tiles(kernels):
    few = arguments(T=64, V=17, noise_std=True, blur=3)
    assert tiles(kernels, few, 3)[2] == 4 and tiles(kernels, few, 300)[2] == 3
    per_sample = (*TENSORS[1:5], "blur", "noise_std", "draw")
    many = {key: value.repeat(100, *[1] * (value.dim() - 1)) if key in per_sample else value
            for key, value in few.items()}  # fmt: skip
    torch.testing.assert_close(emulated(kernels, many)[:3], emulated(kernels, few))


def test_indices_out_of_range_read_nothing(kernels):
    dims = dict(person=3, order=True, branch=True, convert=(17, 2), part=11, kinds=[0, MOTION])
    args = arguments(samples=9, T=20, **dims)
    F, M, V, _ = args["xyz"].shape
    store = torch.full((3 * F, *args["xyz"].shape[1:]), torch.nan)
    store[F : 2 * F] = args["xyz"]
    args["xyz"] = store[F : 2 * F]  # a stray access meets NaN
    generator = torch.Generator().manual_seed(1)
    defined = dict(args)
    for name, size, otherwise in (("frame", F, -1), ("person", M, -1), ("parent", 17, -1),
                                  ("part", 17, 0), ("branch", 3, 2)):  # fmt: skip
        right = args[name]
        stray = torch.rand(right.shape, generator=generator) < 0.2
        far = torch.tensor([size, 2 * size, 2**31 + 1, -(2**40)])
        far = far[torch.randint(1 if name == "branch" else 4, right.shape, generator=generator)]
        args[name] = torch.where(stray, far, right).to(right.dtype)
        defined[name] = torch.where(stray, otherwise, right).to(right.dtype)
    torch.testing.assert_close(emulated(kernels, args), _reference(**defined))
    for name, far in (("bounds", F), ("convert", V), ("order", 17)):
        args[name] = args[name] + far // 2
    assert emulated(kernels, args).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("V", [1, 25, 133, 300])
@pytest.mark.parametrize("kinds", [[0], [NATIVE, MOTION]])
def test_supports_what_fits(kernels, V, kinds, dtype):
    refused = 0
    for taps in range(1, 41, 2):
        args = arguments(dtype, T=4, V=V, C=4, kinds=kinds, blur=taps)
        for samples in (1, 5000):
            fits, shared, *_ = tiles(kernels, args, samples)
            reason = cuda.supports(**args)
            assert bool(fits) == (reason is None), reason
            assert shared <= cuda.SHARED_BYTES or reason
        refused += reason is not None
    assert (refused > 0) == (V > 25 or (V == 25 and (dtype == torch.float64) + len(kinds) > 2))
    assert cuda.supports(**arguments(C=5)) == "at most one channel after the 3 coordinates, got 2"
    assert "12 streams" in cuda.supports(**arguments(kinds=[0] * 13))


def test_tiles_of_a_common_batch(kernels):
    args = arguments(T=64, kinds=STREAMS)
    assert tiles(kernels, args, 1024) == (1, 65 * (150 * 4 + 32) + 144, 1, 1)
    assert tiles(kernels, args, 8)[2:] == (4, 1)
