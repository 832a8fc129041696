"""Units, temporal modules and blocks of CTR-GCN and PYSKL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from skelops.models._published import UNIT_KEYS, KeyPairs
from skelops.nn import (
    AdaptiveGraphConv,
    CTRGraphConv,
    DynamicGraphConv,
    Gates,
    GraphConv,
    GraphUnit,
    MultiScaleTemporalConv,
    Shortcut,
    STBlock,
    TemporalConv,
    TemporalUnit,
)
from skelops.testing.replay import Case, NotUnderstood, Replay, replays

OFFICIAL, PYSKL, BRL = "Uason-Chen/CTR-GCN", "kennymckormick/pyskl", "firework8/BRL"
PSUMNET, HYPER = "skelemoa/psumnet", "6UOOON9/Hyper-GCN"
OFFICIAL_KEYS: KeyPairs = (
    (r"\btopology\.A$", "PA"),
    *UNIT_KEYS,
    (r"^(gcn|tcn)\.", r"\g<1>1."),
)
TOPOLOGIES = {None: "fixed", "init": "learnable", "offset": "offset", "importance": "importance"}

Shapes = Mapping[str, tuple[int, ...]]


class Options:
    """Arguments of a published class; those that nobody asked for are not understood."""

    def __init__(self, kwargs: Mapping) -> None:
        self.left = dict(kwargs)

    def take(self, name: str, default=None):
        return self.left.pop(name, default)

    def below(self, prefix: str) -> Options:
        """Those under a prefix, which is cut off."""
        names = [name for name in self.left if name.startswith(prefix)]
        return Options({name.removeprefix(prefix): self.left.pop(name) for name in names})

    def expect(self, **harmless: Sequence) -> None:
        """No others than these, and those with one of the values."""
        for name, value in self.left.items():
            if name not in harmless or (harmless[name] and value not in harmless[name]):
                raise NotUnderstood(f"argument {name}={value!r}")


def below(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the entries under a prefix, which is cut off."""
    return {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}


def blank(shapes: Shapes) -> Tensor:
    """A graph of the right size, to be filled by the case."""
    for name in ("PA", "A"):
        if name in shapes:
            return torch.zeros(shapes[name])
    raise NotUnderstood("a graph that is not in the state")


# Graph convolution units, from the shapes of their entries.


def ctr_conv(shapes: Shapes, A: Tensor, transposed: bool) -> CTRGraphConv:
    out, C, *_ = shapes["convs.0.conv3.weight"]
    return CTRGraphConv(C, out, A, shapes["convs.0.conv1.weight"][0], transposed=transposed)


def ctr_unit(shapes: Shapes, residual: bool = True, transposed: bool = False) -> GraphUnit:
    out, C, *_ = shapes["convs.0.conv3.weight"]
    return GraphUnit(ctr_conv(shapes, blank(shapes), transposed), C, out, residual=residual)


def static_unit(shapes: Shapes) -> GraphUnit:
    out, C, *_ = shapes["conv_d.0.weight"]
    conv = AdaptiveGraphConv(C, out, blank(shapes), topology="normalised")
    return GraphUnit(conv, C, out)


def adaptive_unit(shapes: Shapes, options: Options) -> GraphUnit:
    out, C, *_ = shapes["conv_d.0.weight"]
    A = blank(shapes)
    adaptive, attention = options.take("adaptive", True), options.take("attention", True)
    options.take("coff_embedding")
    embed = shapes["conv_a.0.weight"][0] if adaptive else None
    conv = AdaptiveGraphConv(C, out, A, embed, "learnable" if adaptive else "fixed")
    return GraphUnit(conv, C, out, gates=Gates(out, A.shape[-1]) if attention else None)


def graph_unit(shapes: Shapes, options: Options) -> GraphUnit:
    A = blank(shapes)
    topology = TOPOLOGIES[options.take("adaptive", "importance")]
    last = options.take("conv_pos", "pre") == "post"
    rows, columns, *_ = shapes["conv.weight"]
    out, C = (rows, columns // len(A)) if last else (rows // len(A), columns)
    conv = GraphConv(C, out, A, topology, aggregate_first=last)
    return GraphUnit(conv, C, out, residual=bool(options.take("with_res", False)))


def dynamic_terms(options: Options) -> dict:
    """Arguments of ``DynamicGraphConv`` for its terms."""
    kinds = [options.take(name, "T") for name in ("ctr", "ada")]
    if any(kind not in (None, "NA", "T") for kind in kinds):
        raise NotUnderstood(f"arguments ctr={kinds[0]!r}, ada={kinds[1]!r}")
    return {
        "channel_wise": kinds[0] is not None,
        "joint_wise": kinds[1] is not None,
        "per_frame": "NA" in kinds,
        "per_subset": options.take("subset_wise", False),
        "channel_act": options.take("ctr_act", "tanh"),
        "joint_act": options.take("ada_act", "softmax"),
    }


def dynamic_unit(shapes: Shapes, options: Options) -> GraphUnit:
    A = blank(shapes)
    for name in ("ratio", "subsets"):
        options.take(name)
    terms = dynamic_terms(options)
    hidden, C, *_ = shapes["pre.0.weight"]
    out = shapes["post.weight"][0]
    return GraphUnit(DynamicGraphConv(C, out, A, hidden // len(A), **terms), C, out)


# Temporal modules.


def temporal_conv(shapes: Shapes, options: Options, padding_mode: str = "zeros") -> TemporalConv:
    out, C, size, _ = shapes["conv.weight"]
    options.take("kernel_size")
    stride, dilation = options.take("stride", 1), options.take("dilation", 1)
    return TemporalConv(C, out, size, stride, dilation, padding_mode)


def multi_scale(
    shapes: Shapes,
    dilations: Sequence[int],
    kinds: Sequence[str],
    options: Options,
    padding_mode: str = "zeros",
) -> MultiScaleTemporalConv:
    """Widths and kernel sizes from the shapes; ``kinds`` are the branches without a kernel."""
    convs = [
        shapes.get(f"branches.{i}.0.weight") or shapes[f"branches.{i}.weight"]
        for i in range(len(dilations) + len(kinds))
    ]
    widths = [shape[0] for shape in convs]
    sizes = [shapes[f"branches.{i}.3.conv.weight"][2] for i in range(len(dilations))]
    transform = shapes.get("transform.2.weight")
    return MultiScaleTemporalConv(
        convs[0][1],
        transform[0] if transform else sum(widths),
        [*zip(sizes, dilations, strict=True), *kinds],
        options.take("stride", 1),
        widths=widths,
        transform=transform is not None,
        mean_joint=shapes["add_coeff"][0] if "add_coeff" in shapes else None,
        padding_mode=padding_mode,
    )


def plain_scales(
    shapes: Shapes,
    options: Options,
    dilations: Sequence[int] = (1, 2, 3, 4),
    padding_mode: str = "zeros",
) -> MultiScaleTemporalConv:
    dilations = options.take("dilations", dilations)
    options.take("kernel_size")
    return multi_scale(shapes, dilations, ["max", "1x1"], options, padding_mode)


# What may follow the branches with a kernel.
ENDS = ([["max", 3], "1x1"], [["max", 3]], ["1x1"], [])


def transformed_scales(shapes: Shapes, options: Options) -> MultiScaleTemporalConv:
    branches = options.take("ms_cfg", [[3, 1], [3, 2], [3, 3], [3, 4], ["max", 3], "1x1"])
    options.take("mid_channels")
    options.take("num_joints")
    kernels = [b for b in branches if not isinstance(b, str) and b[0] != "max"]
    kinds = branches[len(kernels) :]
    if branches[: len(kernels)] != kernels or list(kinds) not in ENDS:
        raise NotUnderstood(f"branches {branches}, other than kernels, then max over 3, then 1x1")
    kinds = [b if isinstance(b, str) else b[0] for b in kinds]
    return multi_scale(shapes, [d for _, d in kernels], kinds, options)


# Whole units as cases.

SIZES = {"in_channels": (), "out_channels": (), "num_joints": ()}
PLAIN = {"norm": ("BN", {"type": "BN"}), "act": ("ReLU", {"type": "ReLU"})}
UNIT_SIZES = {**SIZES, "subsets": (), "coff_embedding": (), **PLAIN}


def unit_replay(unit: nn.Module, options: Options, keys: KeyPairs = UNIT_KEYS) -> Replay:
    options.expect(**UNIT_SIZES, adaptive=(True,), dropout=(), tcn_dropout=())
    return Replay(unit, unit, keys)


@replays(OFFICIAL, "CTRGC")
@replays(PSUMNET, "SAMG")
@replays(PYSKL, "CTRGC")
def relation_conv(case: Case) -> Replay:
    options = Options(case.kwargs)
    for name in ("rel_reduction", "mid_reduction"):
        options.take(name)
    shapes = {f"convs.0.{key}": shape for key, shape in case.shapes.items()}
    given, names = case.group("in"), case.meta["input_names"]
    V = given["x"].shape[-1]
    conv = ctr_conv(shapes, torch.zeros(1, V, V), transposed=case.repository == PYSKL)

    def call(*inputs: Tensor) -> Tensor:
        named = dict(zip(names, inputs, strict=True))
        A, alpha = named.get("A"), named.get("alpha")
        A = inputs[0].new_zeros(V, V) if A is None else A
        alpha = inputs[0].new_ones(1) if alpha is None else alpha
        return conv(named["x"], A if A.dim() == 3 else A.unsqueeze(-3), alpha)

    options.expect(**SIZES)
    keys = (*UNIT_KEYS, (r"^convs\.0\.", ""))
    return Replay(call, conv, keys, own=("A", "alpha"))


@replays(OFFICIAL, "unit_gcn", "baseline.py")
def baseline_unit(case: Case) -> Replay:
    unit = static_unit(case.shapes)
    return unit_replay(unit, Options(case.kwargs), OFFICIAL_KEYS)


@replays(OFFICIAL, "unit_gcn")
@replays(PSUMNET, "unit_gcn")
def official_unit(case: Case) -> Replay:
    options = Options(case.kwargs)
    unit = ctr_unit(case.shapes, bool(options.take("residual", True)))
    return unit_replay(unit, options, OFFICIAL_KEYS)


@replays(PYSKL, "unit_ctrgcn")
def pyskl_ctr_unit(case: Case) -> Replay:
    return unit_replay(ctr_unit(case.shapes, transposed=True), Options(case.kwargs))


def simple_unit(build: Callable[[Shapes, Options], nn.Module]) -> Callable[[Case], Replay]:
    def replay(case: Case) -> Replay:
        options = Options(case.kwargs)
        return unit_replay(build(case.shapes, options), options)

    return replay


for repository in (PYSKL, BRL):
    replays(repository, "unit_gcn")(simple_unit(graph_unit))
    replays(repository, "unit_aagcn")(simple_unit(adaptive_unit))
    replays(repository, "dggcn")(simple_unit(dynamic_unit))


class Temporal(nn.Module):
    """A published temporal module: its last normalisation applied, a residual added within it."""

    def __init__(self, tcn: nn.Module, residual: Shortcut, relu: bool = False) -> None:
        super().__init__()
        self.tcn = TemporalUnit(tcn, relu=relu)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return self.tcn(x, *self.residual(x))


def temporal_replay(
    tcn: nn.Module,
    options: Options,
    residual: bool = False,
    relu: bool = False,
    padding_mode: str = "zeros",
) -> Replay:
    size = options.take("residual_kernel_size", 1)
    sizes = (tcn.in_channels, tcn.out_channels, tcn.stride)
    shortcut = Shortcut(*sizes, residual, size, padding_mode)
    return unit_replay(Temporal(tcn, shortcut, relu), options, (*UNIT_KEYS, (r"^tcn\.", "")))


def padding_of(case: Case) -> str:
    """Beyond the ends Hyper-GCN sees the frames there again, the others zeros."""
    return "replicate" if case.repository == HYPER else "zeros"


@replays(OFFICIAL, "MultiScale_TemporalConv")
@replays(HYPER, "MultiScale_TemporalConv")
@replays(PSUMNET, "TRM")
@replays(PYSKL, "MSTCN")
def scales(case: Case) -> Replay:
    options = Options(case.kwargs)
    residual = bool(options.take("residual", True))
    padding_mode, relu = padding_of(case), case.repository == PYSKL
    tcn = plain_scales(case.shapes, options, padding_mode=padding_mode)
    return temporal_replay(tcn, options, residual, relu, padding_mode)


@replays(PYSKL, "mstcn")
@replays(PYSKL, "dgmstcn")
@replays(BRL, "mstcn")
def scales_and_transform(case: Case) -> Replay:
    options = Options(case.kwargs)
    return temporal_replay(transformed_scales(case.shapes, options), options)


@replays(OFFICIAL, "TemporalConv")
@replays(OFFICIAL, "unit_tcn")
@replays(HYPER, "TemporalConv")
@replays(HYPER, "unit_tcn")
@replays(PSUMNET, "TemporalConv")
@replays(PSUMNET, "unit_tcn")
@replays(PYSKL, "unit_tcn")
@replays(BRL, "unit_tcn")
def single_scale(case: Case) -> Replay:
    options = Options(case.kwargs)
    tcn = temporal_conv(case.shapes, options, padding_of(case))
    if "bn.weight" in case.shapes:
        return temporal_replay(tcn, options)
    options.expect(**SIZES, dropout=(), norm=(None,))
    own = [f"bn.{name}" for name in tcn.bn.state_dict()]
    return Replay(tcn, tcn, own=own)


# Blocks.


def temporal_of(shapes: Shapes, options: Options) -> nn.Module:
    """The temporal module of a PYSKL block, whichever its entries show."""
    options.take("type")
    if "branches.0.0.weight" not in shapes:
        return temporal_conv(shapes, options)
    return transformed_scales(shapes, options)


def block_replay(
    gcn: GraphUnit, tcn: nn.Module, options: Options, keys: KeyPairs, **kwargs
) -> Replay:
    sizes = (gcn.in_channels, gcn.out_channels, tcn.stride)
    residual = bool(options.take("residual", True))
    block = STBlock(gcn, tcn, *sizes, residual=residual, **kwargs)
    return unit_replay(block, options, keys)


@replays(OFFICIAL, "TCN_GCN_unit", "baseline.py")
def baseline_block(case: Case) -> Replay:
    options = Options(case.kwargs)
    tcn = temporal_conv(below(case.shapes, "tcn1."), options)
    return block_replay(static_unit(below(case.shapes, "gcn1.")), tcn, options, OFFICIAL_KEYS)


@replays(OFFICIAL, "TCN_GCN_unit")
@replays(PSUMNET, "STRB")
@replays(PYSKL, "CTRGCNBlock")
def ctr_block(case: Case) -> Replay:
    options, pyskl = Options(case.kwargs), case.repository == PYSKL
    gcn = ctr_unit(below(case.shapes, "gcn1."), transposed=pyskl)
    tcn = plain_scales(below(case.shapes, "tcn1."), options, dilations=(1, 2))
    keys = (*UNIT_KEYS, OFFICIAL_KEYS[-1]) if pyskl else OFFICIAL_KEYS
    return block_replay(gcn, tcn, options, keys, inner_relu=pyskl)


def pyskl_block(unit: Callable[[Shapes, Options], GraphUnit]) -> Callable[[Case], Replay]:
    def replay(case: Case) -> Replay:
        options = Options(case.kwargs)
        of_gcn, of_tcn = options.below("gcn_"), options.below("tcn_")
        of_gcn.take("type")
        of_tcn.left["stride"] = options.take("stride", 1)
        gcn = unit(below(case.shapes, "gcn."), of_gcn)
        tcn = temporal_of(below(case.shapes, "tcn."), of_tcn)
        for part in (of_gcn, of_tcn):
            part.expect(dropout=())
        return block_replay(gcn, tcn, options, UNIT_KEYS)

    return replay


replays(PYSKL, "STGCNBlock")(pyskl_block(graph_unit))
replays(PYSKL, "AAGCNBlock")(pyskl_block(adaptive_unit))
replays(PYSKL, "DGBlock")(pyskl_block(dynamic_unit))
