"""Networks of MAMP and of its MAE baseline."""

from __future__ import annotations

from torch import Tensor, nn

from skelops import ops
from skelops.graph import Layout
from skelops.models import LinearProbe
from skelops.models.mamp import MAMP, MAMPClassifier, MAMPEncoder
from skelops.nn import STAttention, TransformerBlock
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options

REPOSITORY = "maoyunyao/MAMP"
# Cases are recorded without dropout; the published attention is scaled by its width whatever is
# asked for.
UNUSED = ("drop_rate", "attn_drop_rate", "drop_path_rate", "qk_scale")


def layout_of(joints: int) -> Layout:
    """The networks know joints by their number alone."""
    return Layout("case", tuple(range(joints)))


def encoder_arguments(options: Options) -> dict:
    """Those of ``MAMPEncoder`` from the published ones."""
    if (size := options.take("patch_size", 1)) != 1:
        raise NotUnderstood(f"argument patch_size={size!r}")
    for name in UNUSED:
        options.take(name)
    return {
        "layout": layout_of(options.take("num_joints", 25)),
        "num_frames": options.take("num_frames", 120),
        "in_channels": options.take("dim_in", 3),
        "segment": options.take("t_patch_size", 4),
        "width": options.take("dim_feat", 256),
        "depth": options.take("depth", 5),
        "heads": options.take("num_heads", 8),
        "mlp_ratio": options.take("mlp_ratio", 4),
        "qkv_bias": options.take("qkv_bias", True),
    }


@replays(REPOSITORY, "Attention")
def attention(case: Case) -> Replay:
    options = Options(case.kwargs)
    dim, heads = options.take("dim"), options.take("num_heads", 8)
    bias = options.take("qkv_bias", False)
    options.expect(qk_scale=(), attn_drop=(), proj_drop=())
    module = STAttention(dim, heads, qkv_bias=bias)
    return Replay(module, module)


@replays(REPOSITORY, "Block")
def block(case: Case) -> Replay:
    options = Options(case.kwargs)
    dim, heads = options.take("dim"), options.take("num_heads")
    ratio = options.take("mlp_ratio", 4)
    bias = options.take("qkv_bias", True)
    options.expect(qk_scale=(), drop=(), attn_drop=(), drop_path=())
    module = TransformerBlock(dim, heads, ratio, qkv_bias=bias)
    return Replay(module, module)


@replays(REPOSITORY, "Transformer", "model_mamp/transformer.py")
@replays(REPOSITORY, "Transformer", "model_mae/transformer.py")
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


@replays(REPOSITORY, "Transformer", "model/transformer.py")
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


@replays(REPOSITORY, "SkeleEmbed")
def embed(case: Case) -> Replay:
    options = Options(case.kwargs)
    u = options.take("t_patch_size")
    proj = nn.Conv2d(options.take("dim_in"), options.take("dim_feat"), (u, 1), (u, 1))
    options.expect(patch_size=(1,), num_frames=(), num_joints=())

    def call(x: Tensor) -> Tensor:
        y = ops.masked_patch_embed(x, proj.weight, proj.bias)
        return y.unflatten(1, (-1, x.shape[2]))

    return Replay(call, nn.ModuleDict({"proj": proj}))
