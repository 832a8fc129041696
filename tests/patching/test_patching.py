"""Foreign models run fused and stay what they were: outputs, gradients, keys, optimizers."""

import copy
import pickle

import pytest
import torch
from torch import nn

import skelops
from skelops.patching import patch, unpatch
from skelops.testing import plain

V = 25
A = skelops.graph.get_layout("ntu25").adjacency("spatial")


def scales(C, stride=1, **options):
    return plain.Scales(C, C, 5, stride, (1, 2), residual=False, **options)


def official(first=True, stride=2):
    blocks = [plain.Block(plain.RefinedUnit(3, 16, V, 8), scales(16), 3, 16, residual=False)]
    blocks += [plain.Block(plain.RefinedUnit(16, 32, V, 2), scales(32, stride), 16, 32, stride)]
    return plain.OfficialNet(blocks, 32, V, 2, 3, 7)


def pyskl(unit, tcn, residual=True):
    names = ("gcn", "tcn")
    blocks = [
        plain.Block(unit(3, 16), tcn(16, 1), 3, 16, residual=False, names=names),
        plain.Block(unit(16, 32), tcn(32, 2), 16, 32, 2, names=names),
    ]
    return plain.PysklNet(blocks, 32, V, 2, 3, 7)


class GraphicalConv(nn.Module):
    """ConvTemporalGraphical of ST-GCN."""

    def __init__(self, C, out, K):
        super().__init__()
        self.kernel_size = K
        self.conv = nn.Conv2d(C, out * K, 1)

    def forward(self, x, A):
        f = self.conv(x).unflatten(1, (self.kernel_size, -1))
        return torch.einsum("nkctv,kvw->nctw", f, A), A


class GraphicalBlock(nn.Module):
    """st_gcn of ST-GCN."""

    def __init__(self, C, out, stride, residual, dropout=0.0):
        super().__init__()
        self.gcn = GraphicalConv(C, out, 3)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(out),
            nn.Dropout(dropout, inplace=True),
        )
        same = out == C and stride == 1
        change = nn.Sequential(nn.Conv2d(C, out, 1, (stride, 1)), nn.BatchNorm2d(out))
        self.residual = (lambda x: 0) if not residual else (lambda x: x) if same else change

    def forward(self, x, A):
        residual = self.residual(x)
        x, A = self.gcn(x, A)
        return torch.relu(self.tcn(x) + residual), A


class GraphicalNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("A", A.clone())
        self.data_bn = nn.BatchNorm1d(V * 3)
        self.blocks = nn.ModuleList(
            [GraphicalBlock(3, 16, 1, False), GraphicalBlock(16, 16, 1, True),
             GraphicalBlock(16, 32, 2, True)]
        )  # fmt: skip
        self.edge_importance = nn.ParameterList(torch.ones_like(A) for _ in self.blocks)
        self.fcn = nn.Conv2d(32, 7, 1)

    def forward(self, x):
        N, C, T, _, M = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(N * M, V * C, T))
        x = x.view(N * M, V, C, T).permute(0, 2, 3, 1)
        for block, importance in zip(self.blocks, self.edge_importance, strict=True):
            x, _ = block(x, self.A * importance)
        x = x.mean((2, 3)).unflatten(0, (N, M)).mean(1)
        return self.fcn(x[..., None, None]).flatten(1)


class Attention(nn.Module):
    """That of MAMP and timm."""

    def __init__(self, dim=32, num_heads=4):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.attn_drop, self.proj_drop = nn.Dropout(0.0), nn.Dropout(0.0)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = self.attn_drop((q @ k.mT * self.scale).softmax(-1))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(3, 32), nn.LayerNorm(32)
        self.attn, self.fc = Attention(), nn.Linear(32, 7)

    def forward(self, x):
        x = self.embed(x.mean(-1).permute(0, 2, 3, 1).flatten(1, 2))
        return self.fc((x + self.attn(self.norm(x))).mean(1))


class AGCNUnit(nn.Module):
    """unit_gcn of 2s-AGCN: a fixed graph, a learnable offset, a softmax per sample."""

    def __init__(self, C, out):
        super().__init__()
        self.A, self.PA = A.clone(), nn.Parameter(torch.full_like(A, 1e-6))
        for name, width in (("a", out // 4), ("b", out // 4), ("d", out)):
            setattr(self, f"conv_{name}", nn.ModuleList(nn.Conv2d(C, width, 1) for _ in A))
        self.bn, self.soft = nn.BatchNorm2d(out), nn.Softmax(-2)
        self.down = plain.down(C, out)

    def forward(self, x):
        N, C, T, _ = x.shape
        z = 0
        for k, graph in enumerate(self.A + self.PA):
            a, b = self.conv_a[k](x), self.conv_b[k](x)
            a, b = a.permute(0, 3, 1, 2).reshape(N, V, -1), b.reshape(N, -1, V)
            relation = self.soft(a @ b / a.shape[-1]) + graph
            z = z + self.conv_d[k]((x.reshape(N, C * T, V) @ relation).view(N, C, T, V))
        return torch.relu(self.bn(z) + self.down(x))


def agcn():
    blocks = [plain.Block(AGCNUnit(3, 16), plain.ConvNorm(16, 16, 9), 3, 16, residual=False)]
    blocks += [plain.Block(AGCNUnit(16, 32), plain.ConvNorm(32, 32, 9, 2), 16, 32, 2)]
    return plain.OfficialNet(blocks, 32, V, 2, 3, 7)


class HyperNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Conv2d(3, 64, 1), nn.Linear(64, 7)
        widths = ((64, 1), (64, 2))
        self.blocks = nn.ModuleList(
            plain.HyperBlock(plain.HyperUnit(64, C, V), scales(C, s, padding="replicate"), 64, C, s)
            for C, s in widths
        )

    def forward(self, x):
        x, tables = self.embed(x[..., 0]), []
        for block in self.blocks:
            x, table = block(x)
            tables.append(table)
        return self.fc(x.mean((2, 3))) + sum(t.mean() for t in tables)


def rectified(C, stride):
    tcn = scales(C, stride, relu=True)
    tcn.act = nn.ReLU()  # what PYSKL's MSTCN calls it
    return tcn


def pyskl_ctr():
    blocks = [
        plain.Block(plain.RefinedUnit(16, 32, V, 2, transposed=True), rectified(32, 2), 16, 32, 2)
    ]
    return nn.Sequential(plain.ConvNorm(3, 16), *blocks, nn.Flatten(), nn.LazyLinear(7))


def static(**options):
    return pyskl(
        lambda C, out: plain.StaticUnit(C, out, V, **options),
        lambda C, s: plain.TransformedScales(C, C, s),
    )


MODELS = {
    "CTR-GCN": (official, 6),
    "PYSKL CTR-GCN": (pyskl_ctr, 3),
    "2s-AGCN": (agcn, 4),
    "ST-GCN (yysijie)": (GraphicalNet, 6),
    "ST-GCN (PYSKL)": (lambda: pyskl(lambda C, o: plain.StaticUnit(C, o, V),
                                     lambda C, s: plain.ConvNorm(C, C, 9, s)), 4),
    "ST-GCN++": (lambda: static(adaptive="init", residual=True), 6),
    "ST-GCN++, offset, aggregating first": (lambda: static(adaptive="offset", post=True), 6),
    "ST-GCN++, fixed": (lambda: static(adaptive=None), 6),
    "AAGCN": (lambda: pyskl(lambda C, o: plain.AdaptiveUnit(C, o, V),
                            lambda C, s: plain.ConvNorm(C, C, 9, s)), 4),
    "DG-STGCN": (lambda: pyskl(lambda C, o: plain.DynamicUnit(C, o, V),
                               lambda C, s: plain.TransformedScales(C, C, s, num_joints=V)), 6),
    "DG-STGCN, a graph per frame": (lambda: pyskl(
        lambda C, o: plain.DynamicUnit(C, o, V, 0.25, "NA", "T", 4, True, "sigmoid", "relu"),
        lambda C, s: plain.TransformedScales(C, C, s, num_joints=V)), 6),
    "Hyper-GCN": (HyperNet, 6),
    "tokens": (Tokens, 1),
}  # fmt: skip


def batch(name):
    torch.manual_seed(1)
    x = torch.randn(2, 3, 16, V, 2)
    if name == "PYSKL CTR-GCN":
        return x[..., 0]
    return (
        x.permute(0, 4, 2, 3, 1).contiguous() if isinstance(model_of(name), plain.PysklNet) else x
    )


def model_of(name):
    torch.manual_seed(0)
    model = MODELS[name][0]()
    for m in model.modules():  # Published refinements start at zero, where nothing could differ.
        for key in ("alpha", "beta"):
            if isinstance(getattr(m, key, None), nn.Parameter):
                nn.init.constant_(getattr(m, key), 0.3)
        for key in ("A", "PA"):
            if isinstance(getattr(m, key, None), torch.Tensor) and m is not model:
                nn.init.normal_(getattr(m, key), 0.1, 0.2)
    return model


@pytest.fixture(params=MODELS)
def pair(request):
    model, x = model_of(request.param), batch(request.param)
    model(x)  # creates what is lazy
    fused = copy.deepcopy(model)
    return request.param, model, fused, patch(fused), x


def test_a_foreign_model_trains_as_before(pair):
    name, model, fused, report, x = pair
    assert len(report.replaced) == MODELS[name][1], str(report)
    assert list(fused.state_dict()) == list(model.state_dict())
    y = torch.tensor([3, 5])
    optimizers = [torch.optim.SGD(m.parameters(), 0.05) for m in (model, fused)]
    for _ in range(2):
        losses = []
        for m, optimizer in zip((model, fused), optimizers, strict=True):
            loss = nn.functional.cross_entropy(m.train()(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(x), model.eval()(x), atol=2e-3, rtol=2e-3)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[key], value, atol=2e-3, rtol=2e-3, msg=key)


def test_unpatch_restores(pair):
    _, model, fused, report, x = pair
    assert unpatch(fused) == len(report.replaced)
    assert [type(m) for m in fused.modules()] == [type(m) for m in model.modules()]
    with torch.no_grad():
        assert torch.equal(fused.eval()(x), model.eval()(x))


def test_a_copy_and_a_pickle_stay_fused():
    fused = model_of("CTR-GCN").eval()
    patch(fused)
    x = batch("CTR-GCN")
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert unpatch(copy.deepcopy(other)) == 6
        with torch.no_grad():
            assert torch.equal(other(x), fused(x))
        assert [type(m).__name__ for m in other.modules()] == [
            type(m).__name__ for m in model_of("CTR-GCN").modules()
        ]


def test_a_second_patch_changes_nothing():
    model = model_of("CTR-GCN")
    patch(model)
    assert patch(model).replaced == []
    assert unpatch(model) == 6


def test_dropout_still_drops():
    torch.manual_seed(0)
    block = GraphicalBlock(16, 16, 1, True, dropout=0.5)
    assert len(patch(block).replaced) == 2
    x = torch.randn(2, 16, 8, V)
    first, second = (block.train()(x, A)[0] for _ in range(2))
    assert not torch.equal(first, second)
    with torch.no_grad():
        expected = GraphicalBlock.forward(block.eval(), x, A)[0]
        torch.testing.assert_close(block(x, A)[0], expected, atol=1e-5, rtol=1e-5)


def test_unknown_modules_are_named():
    model = nn.Sequential(plain.RefinedUnit(16, 16, V, 2), nn.Conv2d(16, 4, 1))
    report = patch(model)
    assert [(r.name, r.module) for r in report.left] == [("1", "Conv2d")]
    assert "1 modules run fused, 1 as before" in str(report)
    assert "1 (Conv2d): no form that skelops knows" in str(report)


def test_a_module_that_lacks_a_part_is_named_with_it():
    class unit_ctrgcn(plain.RefinedUnit):
        """A unit of PYSKL by name, without its strength."""

    unit = unit_ctrgcn(16, 16, V, 2, transposed=True)
    del unit.alpha
    report = patch(unit)
    assert report.replaced == []
    assert report.left[0].reason == "like the unit of PYSKL's CTR-GCN, but without alpha"


def test_a_module_that_computes_otherwise_is_refused():
    class Squared(plain.RefinedUnit):
        def forward(self, x):
            return super().forward(x) ** 2

    unit = Squared(16, 16, V, 2)
    report = patch(unit)
    assert report.replaced == []
    assert report.left[0].reason.startswith("like the unit of CTR-GCN, but output 0 differs by")
    assert type(unit) is Squared


def test_a_module_that_computes_otherwise_without_gradients_is_refused():
    class Halved(plain.RefinedUnit):
        def forward(self, x):
            y = super().forward(x)
            return y if torch.is_grad_enabled() else y / 2

    report = patch(Halved(16, 16, V, 2))
    assert report.replaced == []
    assert "output 0 without gradients differs by" in report.left[0].reason


def test_a_module_that_does_not_fit_is_refused_with_the_error():
    unit = plain.RefinedUnit(16, 16, V, 2)
    unit.bn = nn.SyncBatchNorm(16)
    report = patch(unit)
    assert report.replaced == []
    assert "like the unit of CTR-GCN, but" in report.left[0].reason


def test_without_verification_what_looks_alike_is_replaced():
    unit = plain.RefinedUnit(16, 16, V, 2)
    assert len(patch(unit, verify=False).replaced) == 1


def test_random_numbers_are_left_alone():
    unit = plain.RefinedUnit(16, 16, V, 2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    patch(unit)
    assert torch.equal(torch.rand(3), expected)
