"""Momentum contrast: keys of several processes, the last batch short, and of one."""

import torch
from torch import distributed, multiprocessing, nn

from skelops.nn.momentum import MomentumContrast, gather_rows


def enqueue(rank, file, results):
    distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    contrast = MomentumContrast(nn.Linear(2, 3), nn.Linear(2, 3), width=3, queue_size=8)
    contrast.enqueue(torch.full((2 - rank, 3), float(rank)))
    results[rank] = (contrast.bank[:3].tolist(), contrast.queue_ptr.item())
    distributed.destroy_process_group()


def test_keys_of_all_processes_enter_every_queue(tmp_path):
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(enqueue, (tmp_path / "rendezvous", results), nprocs=2)
        assert results[0] == results[1] == ([[0.0] * 3, [0.0] * 3, [1.0] * 3], 3)


def test_one_process_has_its_own_keys():
    x = torch.randn(3, 2)
    assert gather_rows(x) is x


def test_a_step():
    contrast = MomentumContrast(nn.Linear(2, 3), nn.Linear(2, 3), 3, queue_size=8, momentum=0.5)
    average = contrast.encoder_k.weight.lerp(contrast.encoder_q.weight, 0.5).detach()
    key = contrast.key(torch.randn(4, 2))
    torch.testing.assert_close(contrast.encoder_k.weight, average)
    torch.testing.assert_close(key.norm(dim=1), torch.ones(4))
    contrast.pending = key
    contrast.end_step()
    assert torch.equal(contrast.bank[:4], key) and contrast.pending is None
    assert contrast.bank.is_contiguous() and contrast.queue.shape == (3, 8)


def test_the_second_encoder_follows_one_that_was_loaded():
    contrast = MomentumContrast(nn.Linear(2, 3), nn.Linear(2, 3), 3, queue_size=8)
    contrast.encoder_loaded()
    assert torch.equal(contrast.encoder_k.weight, contrast.encoder_q.weight)
    assert not contrast.encoder_k.weight.requires_grad
