"""Training through CUDA graphs equals training without."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from skelops.models import create_model


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_graphed_steps_equal_plain_ones(dtype):
    from skelops.train.cuda_graph import CudaGraphed

    plain = create_model("ctr_gcn", num_classes=5, base_channels=16).cuda()
    other = copy.deepcopy(plain)
    generator = torch.Generator("cuda").manual_seed(0)
    losses = {}
    for name, network, call in (("plain", plain, plain), ("graphed", other, CudaGraphed(other))):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        generator.manual_seed(0)
        losses[name] = []
        for batch in (8, 8, 3, 8):
            x = torch.randn(batch, 3, 16, 25, 2, generator=generator, device="cuda")
            y = torch.randint(5, (batch,), generator=generator, device="cuda")
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                loss = cross_entropy(call(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[name].append(loss.detach())
    torch.testing.assert_close(
        torch.stack(losses["graphed"]), torch.stack(losses["plain"]), rtol=2e-2, atol=1e-3
    )
    assert int(other.data_bn.num_batches_tracked) == 4


def test_refuses_other_devices(tmp_path):
    pytest.importorskip("lightning")
    from skelops.train.cli import main

    recipes = ["--config", "ctr_gcn_small", "--config", "synthetic"]
    where = ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    with pytest.raises(ValueError, match="expected one CUDA device with cuda_graph, got 1 of type"):
        main(["fit", *recipes, *where, "--model.cuda_graph", "true"])
