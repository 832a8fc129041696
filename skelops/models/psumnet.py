"""PSUMNet (Trivedi and Sarvadevabhatla, ECCVW 2022, https://arxiv.org/abs/2208.05775)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import BODY_PARTS, Layout, body_part, get_layout
from skelops.models._registry import register_model
from skelops.models.ctr_gcn import CTRGCN, PUBLISHED_KEYS
from skelops.nn import make_stages
from skelops.ops.sample_clips import MOTION

# Blocks of CTR-GCN that each part keeps.
BLOCKS = {"body": range(10), "hand": (0, 4, 5, 6, 7, 8), "leg": (0, 4, 5, 7)}
# Weights of body, hand and leg, by data set and protocol.
ALPHAS = {
    "ntu60_xsub": (2, 1.8, 0.7),
    "ntu60_xview": (2.1, 1.6, 0.7),
    "ntu120_xsub": (2.2, 1.5, 0.7),
    "ntu120_xset": (2.1, 2, 0.8),
    "ntu60_x": (3.4, 2, 1),
    "ntu120_x": (2.4, 2.2, 1),
}
STREAMS = 4


class PSUMNetPart(CTRGCN):
    """The network of one part: CTR-GCN on joints, bones and their motion as channels.

    (N, 4 * C, T, V', M) -> logits (N, num_classes), the streams as ``skelops.data.make_streams``
    gives them for that part.

    Args:
        part: "body", "hand" or "leg".
        num_classes: of the head.
        layout: of the whole skeleton, or of the part as in "ntu25_hand".
        in_channels: of all streams together.
        base_channels: width of the first block.
        net: further arguments of ``CTRGCN``.
    """

    def __init__(
        self,
        part: str,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        in_channels: int = 3 * STREAMS,
        base_channels: int = 64,
        **net,
    ) -> None:
        layout = get_layout(layout)
        if not layout.name.endswith(f"_{part}"):
            layout = body_part(layout, part).layout
        stages = make_stages(base_channels)
        options = {"stages": [stages[i] for i in BLOCKS[part]], "variant": "psumnet"}
        super().__init__(num_classes, layout, in_channels=in_channels, **options | net)
        self.part = part

    def features(self, x: Tensor) -> Tensor:
        V = self.layout.num_joints
        if x.dim() == 5 and x.shape[3] != V:
            expected = f"x of {V} joints ({self.layout.name})"
            raise _check.fail(f"psumnet_{self.part}", expected, f"{x.shape[3]} joints")
        return super().features(x)


for _part in BODY_PARTS:
    register_model(f"psumnet_{_part}")(partial(PSUMNetPart, _part))


@register_model("psumnet")
class PSUMNet(nn.Module):
    r"""Part-stream unified-modality networks: the fused scores of body, hand and leg.

    .. math:: r = \sum_{part} \alpha_{part} \, net_{part}(streams_{part}(x))

    (N, C, T, V, M) of the whole skeleton -> (N, num_classes). ``model.body``, ``model.hand`` and
    ``model.leg`` are the networks of the parts, which are trained one by one as ``psumnet_body``,
    ...; each takes its own checkpoint, or the model one of all, their keys after ``body.``, ....

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        parts: the parts to fuse, e.g. the hand alone for a layout of a hand.
        alphas: one weight per part, or the name of the published ones, see ``ALPHAS``.
        in_channels: C of the input; a part sees the joints, bones and motion of both.
        net: further arguments of ``PSUMNetPart``.

    Published: NTU RGB+D 60 X-Sub 92.9 %, 2.93 M parameters, 64 frames.

    Example:
        >>> model = create_model("psumnet", num_classes=60)
        >>> load_published(model.hand, "ntu60_xsub_hand.pt")
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        parts: Sequence[str] = BODY_PARTS,
        alphas: str | Sequence[float] = "ntu60_xsub",
        in_channels: int = 3,
        **net,
    ) -> None:
        super().__init__()
        if isinstance(alphas, str):
            if alphas not in ALPHAS:
                expected = f"alphas as numbers or one of {', '.join(ALPHAS)}"
                raise _check.fail("psumnet", expected, repr(alphas))
            known = dict(zip(BODY_PARTS, ALPHAS[alphas], strict=True))
            alphas = [known.get(part, 0.0) for part in parts]
        if len(alphas) != len(parts):
            raise _check.fail("psumnet", f"{len(parts)} alphas", len(alphas))
        whole = get_layout(layout)
        self.name, self.num_joints, self.in_channels = whole.name, whole.num_joints, in_channels
        self.alphas = dict(zip(parts, map(float, alphas), strict=True))
        self.tables = {}
        for part in parts:
            cut = body_part(whole, part)
            bones = [cut.joints[parent] for parent in cut.layout.parents]
            rows = [[-1] * len(bones), bones] * 2
            self.tables[part] = {"parent": rows, "part": list(cut.joints)}
            channels = STREAMS * in_channels
            network = PSUMNetPart(part, num_classes, cut.layout, in_channels=channels, **net)
            self.add_module(part, network)
        self.published_keys = PUBLISHED_KEYS["psumnet"]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> fused logits (N, num_classes)."""
        sizes = {"C": self.in_channels, "V": self.num_joints}
        _check.shape(f"psumnet of {self.name}", "x", x, "N C T V M", **sizes)
        score = None
        for part, alpha in self.alphas.items():
            # Under autocast too the streams are as precise as those a part is trained on.
            kinds, tables = (0, 0, MOTION, MOTION), self.tables[part]
            streams = ops.skeleton_streams(x, kinds=kinds, dtype=x.dtype, **tables)
            found = alpha * self.get_submodule(part)(streams)
            score = found if score is None else score + found
        return score
