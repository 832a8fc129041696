"""The published units in plain PyTorch, straight from their equations, under published names.

Slow, but with nothing of the library in them: what the packed modules have to equal.
"""

import torch
import torch.nn.functional as F
from torch import nn


def conv(C, out, k=1, stride=1, dilation=1, padding="zeros"):
    steps = {"stride": (stride, 1), "dilation": (dilation, 1)}
    pad = (dilation * (k - 1) // 2, 0)
    return nn.Conv2d(C, out, (k, 1), padding=pad, padding_mode=padding, **steps)


class ConvNorm(nn.Module):
    """TemporalConv, unit_tcn."""

    def __init__(self, C, out, k=1, stride=1, dilation=1, norm=True, padding="zeros"):
        super().__init__()
        self.conv = conv(C, out, k, stride, dilation, padding)
        if norm:
            self.bn = nn.BatchNorm2d(out)

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) if hasattr(self, "bn") else y


def shortcut(C, out, stride=1, residual=True, k=1, padding="zeros"):
    if not residual:
        return None
    if out == C and stride == 1:
        return nn.Identity()
    return ConvNorm(C, out, k, stride, padding=padding)


def down(C, out):
    return nn.Sequential(conv(C, out), nn.BatchNorm2d(out)) if out != C else nn.Identity()


class Relation(nn.Module):
    """CTRGC: one subset of the channel-wise topology refinement."""

    def __init__(self, C, out, R, transposed=False):
        super().__init__()
        self.conv1, self.conv2 = conv(C, R), conv(C, R)
        self.conv3, self.conv4 = conv(C, out), conv(R, out)
        self.sides = "ncuv,ncut->ncvt" if transposed else "ncuv,ncvt->ncut"

    def forward(self, x, A, alpha):
        p, q = self.conv1(x).mean(2), self.conv2(x).mean(2)
        graph = self.conv4(torch.tanh(p[..., :, None] - q[..., None, :])) * alpha + A
        f = self.conv3(x).transpose(2, 3)
        return torch.einsum(self.sides, graph, f).transpose(2, 3)


class RefinedUnit(nn.Module):
    """unit_gcn of CTR-GCN, unit_ctrgcn of PYSKL."""

    def __init__(self, C, out, V, R, transposed=False, residual=True, K=3):
        super().__init__()
        self.name = "A" if transposed else "PA"
        self.register_parameter(self.name, nn.Parameter(torch.zeros(K, V, V)))
        self.alpha = nn.Parameter(torch.zeros(1))
        self.convs = nn.ModuleList(Relation(C, out, R, transposed) for _ in range(K))
        self.bn = nn.BatchNorm2d(out)
        self.down = down(C, out) if residual else None

    def forward(self, x):
        A = getattr(self, self.name)
        z = self.bn(sum(c(x, a, self.alpha) for c, a in zip(self.convs, A, strict=True)))
        return F.relu(z if self.down is None else z + self.down(x))


class StaticUnit(nn.Module):
    """unit_gcn of PYSKL: a fixed or learnable graph."""

    def __init__(self, C, out, V, adaptive="importance", post=False, residual=False, K=3):
        super().__init__()
        self.adaptive, self.post, self.K = adaptive, post, K
        if adaptive == "init":
            self.A = nn.Parameter(torch.zeros(K, V, V))
        else:
            self.register_buffer("A", torch.zeros(K, V, V))
        if adaptive in ("importance", "offset"):
            self.PA = nn.Parameter(torch.zeros(K, V, V))
        self.conv = conv(C * K, out) if post else conv(C, out * K)
        self.bn = nn.BatchNorm2d(out)
        self.down = down(C, out) if residual else None

    def forward(self, x):
        A = self.A
        if self.adaptive == "importance":
            A = A * self.PA
        elif self.adaptive == "offset":
            A = A + self.PA
        if self.post:
            y = self.conv(torch.einsum("nctv,kvw->nkctw", x, A).flatten(1, 2))
        else:
            y = torch.einsum("nkctv,kvw->nctw", self.conv(x).unflatten(1, (self.K, -1)), A)
        return F.relu(self.bn(y) if self.down is None else self.bn(y) + self.down(x))


class AdaptiveUnit(nn.Module):
    """unit_aagcn of PYSKL."""

    def __init__(self, C, out, V, adaptive=True, attention=True, coff=4, K=3):
        super().__init__()
        self.adaptive, self.attention, self.embed = adaptive, attention, out // coff
        if adaptive:
            self.A = nn.Parameter(torch.zeros(K, V, V))
            self.alpha = nn.Parameter(torch.zeros(1))
            self.conv_a = nn.ModuleList(conv(C, self.embed) for _ in range(K))
            self.conv_b = nn.ModuleList(conv(C, self.embed) for _ in range(K))
        else:
            self.register_buffer("A", torch.zeros(K, V, V))
        self.conv_d = nn.ModuleList(conv(C, out) for _ in range(K))
        if attention:
            odd = V if V % 2 else V - 1
            self.conv_ta = nn.Conv1d(out, 1, 9, padding=4)
            self.conv_sa = nn.Conv1d(out, 1, odd, padding=(odd - 1) // 2)
            self.fc1c, self.fc2c = nn.Linear(out, out // 2), nn.Linear(out // 2, out)
        self.bn = nn.BatchNorm2d(out)
        self.down = down(C, out)

    def forward(self, x):
        z = 0
        for k, A in enumerate(self.A):
            if self.adaptive:
                a, b = self.conv_a[k](x), self.conv_b[k](x)
                S = torch.einsum("nctu,nctv->nuv", a, b) / (self.embed * x.shape[2])
                A = A + self.alpha * torch.tanh(S)
            z = z + self.conv_d[k](
                torch.einsum("nctv,...vw->nctw", x, A)
                if A.dim() == 2
                else (torch.einsum("nctv,nvw->nctw", x, A))
            )
        y = F.relu(self.bn(z) + self.down(x))
        if self.attention:
            y = y + y * torch.sigmoid(self.conv_sa(y.mean(2)))[:, :, None]
            y = y + y * torch.sigmoid(self.conv_ta(y.mean(3)))[..., None]
            gate = self.fc2c(F.relu(self.fc1c(y.mean((2, 3)))))
            y = y + y * torch.sigmoid(gate)[..., None, None]
        return y


class BaselineUnit(nn.Module):
    """unit_gcn of CTR-GCN's baseline."""

    def __init__(self, C, out, V, K=3):
        super().__init__()
        self.PA = nn.Parameter(torch.zeros(K, V, V))
        self.conv_d = nn.ModuleList(conv(C, out) for _ in range(K))
        self.bn = nn.BatchNorm2d(out)
        self.down = down(C, out)

    def forward(self, x):
        A = self.PA / (self.PA.square().sum(1, keepdim=True).sqrt() + 1e-4)
        z = sum(c(torch.einsum("nctv,vw->nctw", x, a)) for c, a in zip(self.conv_d, A, strict=True))
        return F.relu(self.bn(z) + self.down(x))


class DynamicUnit(nn.Module):
    """dggcn of PYSKL: a graph per sample, or with "NA" per frame, of every channel."""

    acts = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}  # noqa: RUF012
    acts["softmax"] = nn.Softmax(-2)

    def __init__(
        self, C, out, V, ratio=0.125, ctr="T", ada="T", K=8, subset_wise=False, ctr_act="tanh",
        ada_act="softmax",
    ):  # fmt: skip
        super().__init__()
        self.width, self.K, self.ctr, self.ada = int(ratio * out), K, ctr, ada
        self.subset_wise, self.ctr_act, self.ada_act = subset_wise, ctr_act, ada_act
        hidden = self.width * K
        self.A = nn.Parameter(torch.zeros(K, V, V))
        self.alpha, self.beta = nn.Parameter(torch.zeros(K)), nn.Parameter(torch.zeros(K))
        self.pre = nn.Sequential(conv(C, hidden), nn.BatchNorm2d(hidden), nn.ReLU())
        self.post = conv(hidden, out)
        if ctr or ada:
            self.conv1, self.conv2 = conv(C, hidden), conv(C, hidden)
        self.bn = nn.BatchNorm2d(out)
        self.down = down(C, out)

    def forward(self, x):
        T, sets = x.shape[2], (self.K, self.width)
        f = self.pre(x).unflatten(1, sets)
        A = self.A[:, None, None]
        if self.ctr or self.ada:
            m = x if "NA" in (self.ctr, self.ada) else x.mean(2, keepdim=True)
            p, q = (c(m).unflatten(1, sets) for c in (self.conv1, self.conv2))
        scale = [s if self.subset_wise else s[:1] for s in (self.alpha, self.beta)]
        if self.ctr:
            difference = p[..., :, None] - q[..., None, :]
            A = A + scale[0].view(-1, 1, 1, 1, 1) * self.acts[self.ctr_act](difference)
        if self.ada:
            affinity = torch.einsum("nkctu,nkctv->nktuv", p, q).unsqueeze(2)
            A = A + scale[1].view(-1, 1, 1, 1, 1) * self.acts[self.ada_act](affinity)
        A = A.expand(len(x), *sets, T, -1, -1)
        z = self.post(torch.einsum("nkctv,nkctvw->nkctw", f, A).flatten(1, 2))
        return F.relu(self.bn(z) + self.down(x))


class HyperUnit(nn.Module):
    """HYPERGC of Hyper-GCN, but for distances without the cancellation of a matrix product.

    Returns the features and the table of virtual joints.
    """

    def __init__(self, C, out, V, Q=3, K=8, reduction=4, topk=9):
        super().__init__()
        self.V, self.K, self.topk = V, K, topk
        embed = K * (C // K // reduction)
        self.hyper_joint = nn.Parameter(torch.randn(Q, C))
        self.alpha = nn.Parameter(torch.ones(1))
        self.PA = nn.Parameter(torch.ones(K, V + Q, V + Q), requires_grad=False)
        self.edge_importance = nn.Parameter(torch.ones(K, V + Q, V + Q))
        self.to_V = nn.Conv1d(C, embed, 1, groups=K)
        hidden = nn.Conv1d(C, embed, 1, groups=K)
        self.to_W = nn.Sequential(hidden, nn.LeakyReLU(), nn.Conv1d(embed, K, 1), nn.Tanh())
        self.conv_d = nn.Conv2d(C, out, 1, groups=K)
        self.bn = nn.BatchNorm2d(out)
        self.down = down(C, out)

    def hyper_graph(self, t):
        f = self.to_V(t).unflatten(1, (self.K, -1)).transpose(2, 3)
        distance = torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(self.topk, largest=False)
        share = torch.softmax(-nearest.values, -1)
        H = torch.zeros_like(distance).scatter(3, nearest.indices, share.to(distance.dtype))
        w = self.to_W(t).to(distance.dtype)
        H_w = H @ torch.diag_embed(w)
        rows = H_w / (H_w.abs().sum(3, keepdim=True) + 1e-8)
        return rows @ torch.diag_embed(w / (H.abs().sum(2) + 1e-8)) @ H.mT

    def forward(self, x):
        joints = self.hyper_joint.T[:, None].repeat(len(x), 1, x.shape[2], 1)
        x_all = torch.cat([x, joints], -1)
        A = self.edge_importance * self.PA
        A = A / (A.abs().sum(2, keepdim=True) + 1e-8)
        A = A + F.relu(self.alpha) * self.hyper_graph(x_all.mean(2))
        f = self.conv_d(x_all).unflatten(1, (self.K, -1))
        y = torch.einsum("nkuv,nkctv->nkctu", A.to(f.dtype), f).flatten(1, 2)[..., : self.V]
        return F.relu(self.bn(y) + self.down(x)), self.hyper_joint


class Scales(nn.Module):
    """MultiScale_TemporalConv of CTR-GCN, MSTCN of PYSKL (which ends in a rectifier)."""

    def __init__(
        self, C, out, k=3, stride=1, dilations=(1, 2, 3, 4), residual=True, relu=False,
        padding="zeros", residual_k=1,
    ):  # fmt: skip
        super().__init__()
        w = out // (len(dilations) + 2)
        self.branches = nn.ModuleList(
            nn.Sequential(
                conv(C, w),
                nn.BatchNorm2d(w),
                nn.ReLU(),
                ConvNorm(w, w, k, stride, d, padding=padding),
            )
            for d in dilations
        )
        pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        self.branches.append(
            nn.Sequential(conv(C, w), nn.BatchNorm2d(w), nn.ReLU(), pool, nn.BatchNorm2d(w))
        )
        self.branches.append(nn.Sequential(conv(C, w, 1, stride), nn.BatchNorm2d(w)))
        self.residual = shortcut(C, out, stride, residual, residual_k, padding)
        self.relu = relu

    def forward(self, x):
        y = torch.cat([branch(x) for branch in self.branches], 1)
        y = y if self.residual is None else y + self.residual(x)
        return F.relu(y) if self.relu else y


class TransformedScales(nn.Module):
    """mstcn and, with ``num_joints``, dgmstcn of PYSKL."""

    def __init__(self, C, out, stride=1, cfg=None, num_joints=None):
        super().__init__()
        cfg = cfg or [(3, 1), (3, 2), (3, 3), (3, 4), ("max", 3), "1x1"]
        w = out // len(cfg)
        widths = [out - w * (len(cfg) - 1)] + [w] * (len(cfg) - 1)
        self.branches = nn.ModuleList()
        for kind, w in zip(cfg, widths, strict=True):
            if kind == "1x1":
                self.branches.append(conv(C, w, 1, stride))
                continue
            last = (
                nn.MaxPool2d((kind[1], 1), (stride, 1), (1, 0))
                if kind[0] == "max"
                else ConvNorm(w, w, kind[0], stride, kind[1], norm=False)
            )
            self.branches.append(nn.Sequential(conv(C, w), nn.BatchNorm2d(w), nn.ReLU(), last))
        if num_joints:
            self.add_coeff = nn.Parameter(torch.zeros(num_joints))
        self.transform = nn.Sequential(nn.BatchNorm2d(out), nn.ReLU(), conv(out, out))
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x):
        if hasattr(self, "add_coeff"):
            x = torch.cat([x, x.mean(-1, keepdim=True)], -1)
        y = torch.cat([branch(x) for branch in self.branches], 1)
        if hasattr(self, "add_coeff"):
            y = y[..., :-1] + torch.einsum("nct,v->nctv", y[..., -1], self.add_coeff)
        return self.bn(self.transform(y))


class Block(nn.Module):
    """A unit over joints and one over time with the residual of both; ``names`` of the two."""

    def __init__(self, gcn, tcn, C, out, stride=1, residual=True, names=("gcn1", "tcn1")):
        super().__init__()
        self.names = names
        self.add_module(names[0], gcn)
        self.add_module(names[1], tcn)
        self.residual = shortcut(C, out, stride, residual)

    def forward(self, x):
        gcn, tcn = (getattr(self, name) for name in self.names)
        y = tcn(gcn(x))
        return F.relu(y if self.residual is None else y + self.residual(x))


class HyperBlock(Block):
    """TCN_GCN_unit of Hyper-GCN: hands the table of its unit on."""

    def forward(self, x):
        y, table = self.gcn1(x)
        return F.relu(self.tcn1(y) + self.residual(x)), table


class OfficialNet(nn.Module):
    """Model of CTR-GCN and of its baseline; ``blocks`` in order."""

    def __init__(self, blocks, channels, V, M, C, classes):
        super().__init__()
        self.count = len(blocks)
        self.data_bn = nn.BatchNorm1d(M * V * C)
        for i, block in enumerate(blocks):
            self.add_module(f"l{i + 1}", block)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        N, C, T, V, M = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(N, -1, T))
        x = x.view(N, M, V, C, T).permute(0, 1, 3, 4, 2).flatten(0, 1)
        for i in range(self.count):
            x = getattr(self, f"l{i + 1}")(x)
        return self.fc(x.unflatten(0, (N, M)).mean((3, 4)).mean(1))


class HyperNet(nn.Module):
    """Model of Hyper-GCN with nine blocks for (channels, stride) stages; returns the logits."""

    def __init__(self, stages, V, M, C, classes, Q=3, K=8):
        super().__init__()
        embed = width = stages[0][0]
        self.pos_embedding = nn.Parameter(torch.randn(1, V, embed))
        self.to_joint_embedding = nn.Linear(C, embed)
        self.data_bn = nn.BatchNorm1d(M * V * embed)
        for i, (out, stride) in enumerate(stages):
            unit = HyperUnit(width, out, V, Q, K)
            tcn = Scales(out, out, 5, stride, (1, 2), residual=False, padding="replicate")
            self.add_module(f"l{i + 1}", HyperBlock(unit, tcn, width, out, stride))
            width = out
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        N, _, T, V, M = x.shape
        x = torch.tanh(self.to_joint_embedding(x.permute(0, 4, 2, 3, 1)) + self.pos_embedding)
        x = self.data_bn(x.permute(0, 1, 3, 4, 2).reshape(N, -1, T))
        x = x.view(N, M, V, -1, T).permute(0, 1, 3, 4, 2).flatten(0, 1)
        for i in (1, 4, 7):
            first, _ = getattr(self, f"l{i}")(x)
            second, _ = getattr(self, f"l{i + 1}")(first)
            x, _ = getattr(self, f"l{i + 2}")(second + first)
        return self.fc(x.unflatten(0, (N, M)).mean((3, 4)).mean(1))

    def auxiliary_loss(self):
        """DivergenceLoss of the tables."""
        total = 0
        for i in range(1, 10):
            table = getattr(self, f"l{i}").gcn1.hyper_joint
            norm = table.norm(dim=-1, keepdim=True)
            cosine = table @ table.T / (norm @ norm.T + 1e-8)
            Q = len(table)
            total = total + (F.relu(cosine).sum() - Q) / (Q * (Q - 1))
        return total / 9


class PysklNet(nn.Module):
    """A recogniser of PYSKL; ``blocks`` under ``name``, with the graph A as a buffer if given.

    The input is normalised by statistics of M persons together, of each if None, not at all if 0.
    """

    def __init__(self, blocks, channels, V, M, C, classes, name="gcn", A=None):
        super().__init__()
        self.name, self.together = name, M or 1
        self.backbone, self.cls_head = nn.Module(), nn.Module()
        self.backbone.data_bn = nn.Identity() if M == 0 else nn.BatchNorm1d(self.together * V * C)
        self.backbone.add_module(name, nn.ModuleList(blocks))
        if A is not None:
            self.backbone.register_buffer("A", A)
        self.cls_head.fc_cls = nn.Linear(channels, classes)

    def forward(self, x):
        N, M, T, V, C = x.shape
        x = x.permute(0, 1, 3, 4, 2).reshape(-1, self.together * V * C, T)
        x = self.backbone.data_bn(x).view(N * M, V, C, T).permute(0, 2, 3, 1)
        for block in getattr(self.backbone, self.name):
            x = block(x)
        return self.cls_head.fc_cls(x.unflatten(0, (N, M)).mean((3, 4)).mean(1))
