"""Random numbers and means that are equal on all ranks, and the GPU of each rank."""

import pytest
import torch

from vertebra.engine import seed_step
from vertebra.engine.distributed.context import Launch, local_device_index
from vertebra.ops import all_reduce_mean, distributed, draw_image_seeds, shared_generator, uniform_from_seeds
from vertebra.structures import UsageError


def test_numbers_from_a_seed_are_uniform():
    """Law: a million numbers fill 64 bins equally (5 sigma), and neighbors are uncorrelated."""
    keys = uniform_from_seeds(torch.tensor(7), 1_000_000)
    assert keys.min() >= 0 and keys.max() < 1
    counts = torch.histc(keys, 64, min=0, max=1)
    torch.testing.assert_close(counts, torch.full_like(counts, 1e6 / 64), rtol=0, atol=5 * (1e6 / 64) ** 0.5)
    assert abs(torch.corrcoef(torch.stack([keys[:-1], keys[1:]]))[0, 1]) < 5e-3


def test_numbers_from_other_seeds_are_independent():
    """Law: numbers from similar seeds are uncorrelated, and the first numbers do not depend on how many follow."""
    first, second = (uniform_from_seeds(torch.tensor(seed), 10_000) for seed in (1, 2))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 5e-2
    assert torch.equal(first[:10], uniform_from_seeds(torch.tensor(1), 10))


def test_largest_seed_does_not_overflow():
    """Law: a seed just below 2^32 gives numbers in [0, 1)."""
    keys = uniform_from_seeds(torch.tensor(2**32 - 1), 1000)
    assert keys.min() >= 0 and keys.max() < 1 and keys.unique().numel() > 990


@pytest.mark.parametrize("count", [1, 2, 4])
def test_random_seeds_of_images_do_not_depend_on_the_world_size(count, monkeypatch):
    """Law: the seeds of all ranks, in order, are those that one process draws for all images.

    Other numbers that a rank draws in between do not matter.
    """
    cpu, shards = torch.device("cpu"), []
    with shared_generator(5, cpu):
        expected = [draw_image_seeds(8, cpu) for _ in range(2)]
    monkeypatch.setattr(distributed, "get_world_size", lambda: count)
    for rank in range(count):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        with shared_generator(5, cpu):
            first, _ = draw_image_seeds(8 // count, cpu), torch.rand(rank)
            shards.append((first, draw_image_seeds(8 // count, cpu)))
    for of_ranks, of_one_process in zip(zip(*shards, strict=True), expected, strict=True):
        assert torch.equal(torch.cat(of_ranks), of_one_process)


def test_dropout_differs_between_ranks_and_steps():
    """Law: two ranks drop different units, and a repeated step drops the same ones."""

    def dropped_units(step: int, rank: int) -> torch.Tensor:
        seed_step(0, step, rank)
        return torch.nn.functional.dropout(torch.ones(1000), 0.5) == 0

    for other in ((3, 1), (4, 0)):  # half of the units agree by chance; 0.08 is 5 sigma
        assert abs(float((dropped_units(3, 0) == dropped_units(*other)).float().mean()) - 0.5) < 0.08
    assert torch.equal(dropped_units(3, 1), dropped_units(3, 1))


def test_outside_a_step_image_seeds_follow_torch_manual_seed():
    """By hand: a user's own training loop is seeded as usual."""
    torch.manual_seed(5)
    first = draw_image_seeds(4, torch.device("cpu"))
    torch.manual_seed(5)
    assert torch.equal(first, draw_image_seeds(4, torch.device("cpu")))
    assert not torch.equal(first, draw_image_seeds(4, torch.device("cpu")))


def test_every_rank_gets_one_gpu():
    """By hand: by local rank; with --gpus-per-task, srun shows every process only one GPU."""
    assert local_device_index(Launch(9, 16, 1, "tcp://host:1"), 8) == 1
    assert local_device_index(Launch(9, 16, 1, "tcp://host:1", by_slurm=True), 8) == 1
    assert local_device_index(Launch(9, 16, 1, "tcp://host:1", by_slurm=True), 1) == 0
    with pytest.raises(UsageError, match="this process has local rank 1, but sees 1 GPUs"):
        local_device_index(Launch(1, 2, 1, "tcp://host:1"), 1)


def test_mean_over_one_process_is_its_value():
    """By hand."""
    assert all_reduce_mean(torch.tensor(3.0)) == 3
