"""What processes share: random numbers of an image, and what a loss is divided by."""

import pytest
import torch

from vertebra.ops import draw_seeds, mean_over_processes, uniform_keys


def test_keys_are_uniform():
    """A law: 64 equal bins of a million numbers are filled alike (5 sigma), and neighbours are not related."""
    keys = uniform_keys(torch.tensor(7), 1_000_000)
    assert keys.min() >= 0 and keys.max() < 1
    counts = torch.histc(keys, 64, min=0, max=1)
    torch.testing.assert_close(counts, torch.full_like(counts, 1e6 / 64), rtol=0, atol=5 * (1e6 / 64) ** 0.5)
    assert abs(torch.corrcoef(torch.stack([keys[:-1], keys[1:]]))[0, 1]) < 5e-3


def test_keys_of_other_seeds_are_others():
    """A law: near seeds share no order, and the first keys do not depend on how many follow."""
    first, second = (uniform_keys(torch.tensor(seed), 10_000) for seed in (1, 2))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 5e-2
    assert torch.equal(first[:10], uniform_keys(torch.tensor(1), 10))


def test_the_largest_seed_does_not_overflow():
    """A law: a seed below 2^32 gives numbers in [0, 1)."""
    keys = uniform_keys(torch.tensor(2**32 - 1), 1000)
    assert keys.min() >= 0 and keys.max() < 1 and keys.unique().numel() > 990


@pytest.mark.parametrize("count", [1, 2, 4])
def test_images_draw_alike_on_any_number_of_processes(count, monkeypatch):
    """A law: the seeds of all processes, rank by rank, are those that one process draws for all images."""
    from vertebra.ops import processes

    torch.manual_seed(5)
    whole = draw_seeds(8, torch.device("cpu"))
    monkeypatch.setattr(processes, "process_count", lambda: count)
    shares = []
    for rank in range(count):
        monkeypatch.setattr(processes, "process_rank", lambda rank=rank: rank)
        torch.manual_seed(5)
        shares.append(draw_seeds(8 // count, torch.device("cpu")))
    assert torch.equal(torch.cat(shares), whole)


def test_alone_the_mean_is_the_value():
    """By hand."""
    assert mean_over_processes(torch.tensor(3.0)) == 3
