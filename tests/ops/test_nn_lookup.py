"""nn_lookup: neighbours are of others; ties, numbers that are none, and how it refuses."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import nn_lookup


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_nearest_neighbours_are_of_others():
    z, own = unit(300, 8), torch.arange(300)
    assert torch.equal(nn_lookup(z, z, torch.full((300,), -1), own), own)
    found = nn_lookup(z, z, own, own)
    assert torch.equal(found, (z @ z.T - 9 * torch.eye(300)).argmax(1))
    twins = own // 2
    assert (twins[nn_lookup(z, z, twins, twins)] != twins).all()


@pytest.mark.parametrize("K", [3, 128, 1500])
def test_of_equal_similarities_the_first_wins(K):
    queue = unit(1, 8).expand(K, 8)
    ids = torch.zeros(K, dtype=torch.int64)
    ids[0] = 1
    assert nn_lookup(unit(2, 8), queue, ids, torch.tensor([1, 5])).tolist() == [1, 0]


def test_a_queue_of_the_sample_alone_gives_its_first_entry():
    own = torch.zeros(200, dtype=torch.int64)
    assert nn_lookup(unit(1, 8), unit(200, 8), own, own[:1]).item() == 0


def test_what_is_not_a_number_is_never_nearest():
    queue, free = unit(9, 8), torch.full((9,), -1)
    queue[3] = torch.nan
    z = torch.cat([queue[:1], torch.full((1, 8), torch.nan), torch.zeros(1, 8)])
    assert nn_lookup(z, queue, free, torch.arange(3)).tolist() == [0, 0, 0]


def test_half_types_are_summed_in_full_precision():
    z, queue = unit(4, 256).half(), unit(2000, 256, seed=1).half()
    exact = (z.double() @ queue.double().T).argmax(1)
    assert torch.equal(nn_lookup(z, queue, torch.full((2000,), -1), torch.arange(4)), exact)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"queue": torch.zeros(0, 4)}, ValueError, "a queue of at least one entry"),
        ({"queue": torch.zeros(5, 2)}, ValueError, "queue of shape (K, D) with D=4"),
        ({"queue_id": torch.arange(3)}, ValueError, "queue_id of shape (5,), got (3,)"),
        ({"ids": torch.zeros(2)}, TypeError, "ids of dtype torch.int64, got torch.float32"),
        ({"queue": torch.zeros(5, 4).double()}, TypeError, "queue of z's dtype"),
    ],
)
def test_bad_input(changes, error, message):
    given = {"z": unit(2, 4), "queue": unit(5, 4), "queue_id": torch.arange(5)}
    with pytest.raises(error, match=re.escape(f"nn_lookup: expected {message}")):
        nn_lookup(**(given | {"ids": torch.arange(2)} | changes))
