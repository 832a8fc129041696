"""random_uniform: the published generator, its distribution, and how it refuses."""

import re

import pytest
import torch

from skelops import random_uniform
from skelops.ops import _philox

MASK = 2**32 - 1
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def philox(counter, key):
    """Philox4x32-10 in whole numbers, as in the paper."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = second >> 32 ^ b ^ k, second & MASK, first >> 32 ^ d ^ m, first & MASK
        k, m = k + 0x9E3779B9 & MASK, m + 0xBB67AE85 & MASK
    return a, b, c, d


@pytest.mark.parametrize("counter, key, words", KNOWN)
def test_known_answers_of_the_published_generator(counter, key, words):
    assert philox(counter, key) == words


@pytest.mark.parametrize(
    "draw, seed, epoch, stream",
    [
        (0, 0, 0, 0),
        (MASK, -1, 2**31 - 1, 2**31 - 1),
        (PI[2], PI[0] << 32 | PI[1], PI[3], 17),
        (-5, -(2**63), 1, 0),
        (2**40 + 3, 2**63 - 1, 0, 31),
    ],
)
def test_every_number_is_a_word_of_its_block(draw, seed, epoch, stream):
    count = 150  # reaches into the third tile of 16 blocks
    key = (seed & MASK, seed >> 32 & MASK)
    blocks = [philox((b, stream, draw & MASK, epoch), key) for b in range(48)]
    words = [blocks[i // 64 * 16 + i % 16][i // 16 % 4] for i in range(count)]
    at = torch.tensor([draw])
    assert _philox.words(at, seed, epoch, stream, count)[0].tolist() == words
    u = random_uniform(at, count, seed=seed, epoch=epoch, stream=stream)
    assert u[0].tolist() == [(word >> 8) * 2.0**-24 for word in words]


def test_zero_key_and_counter():
    u = random_uniform(torch.tensor([0]), 49, seed=0)[0, ::16]
    assert [int(x) for x in u.double() * 2**24] == [word >> 8 for word in KNOWN[0][2]]


def numbers(stream=0, epoch=0, seed=5, draws=4000, count=32):
    return random_uniform(torch.arange(draws), count, seed=seed, epoch=epoch, stream=stream)


def test_uniform():
    u = numbers().double()
    assert 0 <= u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    assert (u.mean(0) - 0.5).abs().max() < 0.02 and (u.var(0) - 1 / 12).abs().max() < 0.004
    share = torch.histc(u, 64, 0, 1) / u.numel()
    chi = ((share * 64 - 1) ** 2).sum() * u.numel() / 64  # 63 degrees of freedom
    assert 30 < chi < 110


def test_independent():
    u = numbers().double()
    assert (torch.corrcoef(u.T) - torch.eye(32)).abs().max() < 0.08  # numbers of a draw
    others = {
        "the next draw": u.roll(1, 0),
        "the next stream": numbers(stream=1).double(),
        "the next epoch": numbers(epoch=1).double(),
        "the next seed": numbers(seed=6).double(),
        "a seed that differs in its high word": numbers(seed=5 + 2**32).double(),
    }
    for name, other in others.items():
        between = torch.corrcoef(torch.stack([u.flatten(), other.flatten()]))[0, 1]
        assert abs(between) < 0.012, name
        assert (u == other).double().mean() < 1e-4, name


def test_normal():
    z = _philox.normal(torch.arange(4000), 5, 0, 0, 32)
    assert z.mean().abs() < 0.01 and abs(z.var() - 1) < 0.02
    assert abs((z**3).mean()) < 0.03 and abs((z**4).mean() - 3) < 0.1
    assert (torch.corrcoef(z.T) - torch.eye(32)).abs().max() < 0.08
    within = (z.abs() < 1.959964).double().mean()
    assert abs(within - 0.95) < 0.003


def test_numbers_do_not_depend_on_the_batch_or_their_count():
    draw = torch.tensor([3, 2**33 + 1, 3, -1, 0])
    u = random_uniform(draw, 200, seed=9, epoch=2, stream=4)
    assert torch.equal(u[0], u[2])
    for n in range(5):
        for count in (1, 63, 64, 65):
            one = random_uniform(draw[n : n + 1], count, seed=9, epoch=2, stream=4)
            assert torch.equal(one[0], u[n, :count])


def test_the_low_32_bits_of_a_draw_count():
    draw = torch.tensor([7, 7 + 2**32])
    assert torch.equal(*random_uniform(draw, 8, seed=1))


@pytest.mark.parametrize("N, count", [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_draw(N, count):
    assert random_uniform(torch.arange(N), count, seed=0).shape == (N, count)


@pytest.mark.parametrize(
    "draw, options, error, message",
    [
        ([1], {}, TypeError, "draw of dtype torch.int64, got list"),
        (torch.zeros(2), {}, TypeError, "draw of dtype torch.int64, got torch.float32"),
        (torch.zeros(2, 1, dtype=torch.int64), {}, ValueError, "draw of shape (N), got (2, 1)"),
        (torch.arange(2), {"count": -1}, ValueError, "count >= 0, got -1"),
        (torch.arange(2), {"epoch": -1}, ValueError, "epoch in [0, 2^31), got -1"),
        (torch.arange(2), {"epoch": 2**31}, ValueError, "epoch in [0, 2^31), got 2147483648"),
        (torch.arange(2), {"stream": 2**31}, ValueError, "stream in [0, 2^31), got 2147483648"),
        (torch.arange(2), {"seed": 2**63}, ValueError, "seed in [-2^63, 2^63), got 922337203685"),
    ],
)
def test_refusals(draw, options, error, message):
    with pytest.raises(error, match=re.escape(f"random_uniform: expected {message}")):
        random_uniform(draw, **{"count": 3, "seed": 0, **options})
