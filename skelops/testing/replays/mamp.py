"""Networks of MAMP and of its MAE baseline."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from skelops.graph import Layout
from skelops.models import LinearProbe
from skelops.models.mamp import MAMP, MAMPClassifier, MAMPEncoder
from skelops.nn import STAttention, TransformerBlock
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options

REPOSITORY = "maoyunyao/MAMP"
COPY = "TaatiTeam/STARS"  # has one below MAMP/
# Cases are recorded without dropout; the published attention is scaled by its width whatever is
# asked for.
UNUSED = ("drop_rate", "attn_drop_rate", "drop_path_rate", "qk_scale")


def published(kind: str, file: str = "") -> Callable:
    """``replays`` of MAMP and of the copy that comes with STARS."""

    def add(build: Callable[[Case], Replay]) -> Callable[[Case], Replay]:
        replays(REPOSITORY, kind, file)(build)
        return replays(COPY, kind, f"MAMP/{file}")(build)

    return add


def layout_of(joints: int) -> Layout:
    """The networks know joints by their number alone."""
    return Layout("case", tuple(range(joints)))


def encoder_arguments(options: Options, depth: int = 5) -> dict:
    """Those of ``MAMPEncoder`` from the published ones."""
    for name in UNUSED:
        options.take(name)
    return {
        "layout": layout_of(options.take("num_joints", 25)),
        "num_frames": options.take("num_frames", 120),
        "in_channels": options.take("dim_in", 3),
        "segment": options.take("t_patch_size", 4),
        "patch": options.take("patch_size", 1),
        "width": options.take("dim_feat", 256),
        "depth": options.take("depth", depth),
        "heads": options.take("num_heads", 8),
        "mlp_ratio": options.take("mlp_ratio", 4),
        "qkv_bias": options.take("qkv_bias", True),
    }


@published("Attention")
def attention(case: Case) -> Replay:
    options = Options(case.kwargs)
    dim, heads = options.take("dim"), options.take("num_heads", 8)
    bias = options.take("qkv_bias", False)
    options.expect(qk_scale=(), attn_drop=(), proj_drop=())
    module = STAttention(dim, heads, qkv_bias=bias)
    return Replay(module, module)


@published("Block")
def block(case: Case) -> Replay:
    options = Options(case.kwargs)
    dim, heads = options.take("dim"), options.take("num_heads")
    ratio = options.take("mlp_ratio", 4)
    bias = options.take("qkv_bias", True)
    options.expect(qk_scale=(), drop=(), attn_drop=(), drop_path=(), mlp_out_ratio=(1.0,))
    module = TransformerBlock(dim, heads, ratio, qkv_bias=bias)
    return Replay(module, module)


@published("Transformer", "model_mamp/transformer.py")
@published("Transformer", "model_mae/transformer.py")
def pretraining(case: Case) -> Replay:
    options = Options(case.kwargs)
    call = dict(options.take("forward", {}))
    encoder = encoder_arguments(options)
    coordinates = "model_mae" in case.meta["source"]
    motion_stride, tau = call.pop("motion_stride", 1), call.pop("motion_aware_tau", 0.75)
    model = MAMP(
        decoder_width=options.take("decoder_dim_feat", 256),
        decoder_depth=options.take("decoder_depth", 5),
        mask_ratio=call.pop("mask_ratio", 0.8),
        stride=0 if coordinates else motion_stride,
        tau=0.0 if coordinates else max(tau, 0.0),
        normalise=options.take("norm_skes_loss", False),
        **encoder,
    )
    options.expect()
    if call:
        raise NotUnderstood(f"arguments {sorted(call)} of forward")

    def run(x: Tensor, noise: Tensor) -> list[Tensor]:
        found = model(x, noise.detach(), exact=True)._asdict()
        found["mask"] = (~found["mask"]).to(x.dtype)  # published: 1 on removed tokens
        return [found[name] for name in case.meta["output_names"]]

    return Replay(run, model, model.published_keys, data=("noise",))


@published("Transformer", "model/transformer.py")
def classifier(case: Case) -> Replay:
    options = Options(case.kwargs)
    encoder = MAMPEncoder(**encoder_arguments(options))
    classes, protocol = options.take("num_classes", 60), options.take("protocol", "linprobe")
    options.expect()
    model: nn.Module
    if protocol == "linprobe":
        model = LinearProbe(encoder, classes)
    elif protocol == "finetune":
        model = MAMPClassifier(encoder, classes, hidden=case.shapes["head.fc1.weight"][0],
                               drop_path=0)  # fmt: skip
    else:
        raise NotUnderstood(f"argument protocol={protocol!r}")
    return Replay(model, model, model.published_keys)


@published("SkeleEmbed")
def embed(case: Case) -> Replay:
    options = Options(case.kwargs)
    encoder = MAMPEncoder(**encoder_arguments(options) | {"depth": 0})
    options.expect()
    nn.init.zeros_(encoder.temp_embed)
    nn.init.zeros_(encoder.pos_embed)
    encoder.norm = nn.Identity()

    def call(x: Tensor) -> Tensor:
        folded = encoder.fold(x.permute(0, 3, 1, 2).unsqueeze(-1))
        return encoder.tokens(folded).unflatten(1, (-1, encoder.places))

    own = ("temp_embed", "pos_embed")
    return Replay(call, encoder, ((r"^joints_embed\.", ""),), own=own)
