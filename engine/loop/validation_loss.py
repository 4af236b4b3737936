"""What the losses are on images that are not trained on."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...data import Dataset, Shard, eval_loader, worker_errors
from ...models import Model
from ...ops import single_process, split_losses
from ..config import ExperimentConfig
from ..distributed.context import DistributedContext
from .evaluate import evaluation_mode
from .step import seed_step


@torch.no_grad()
def validation_losses(
    model: Model, dataset: Dataset, config: ExperimentConfig, processes: DistributedContext | None = None
) -> dict[str, float | None]:
    """The mean over the images of each loss, and of their sum ``loss``; None for one that is not finite.

    Every image is a batch of its own, and what is drawn at random of it is a function of the seed and its place in the
    data: neither the step nor the number of processes changes a bit. Of several processes each takes its share of the
    images, and the first one gets the result; the others an empty one.
    """
    processes = processes or DistributedContext(model.device)
    share = Shard(processes.rank, processes.count)
    batches = eval_loader(
        dataset, config.val.transform, config.run.loader, batch_size=1, divisor=model.size_divisor, share=share
    )
    names: list[str] = []
    rows: list[Tensor] = []
    with evaluation_mode(model), single_process(), worker_errors():
        for number, batch in enumerate(batches):
            seed_step(config.recipe.seed, share.rank + number * share.processes)
            batch = batch.to(model.device)
            losses, _ = split_losses(model(batch.images, batch.targets))
            names = [*losses, "loss"]
            values = torch.stack(list(losses.values()))
            rows.append(torch.cat([values, values.sum()[None]]))
    own = torch.stack(rows).tolist() if rows else []  # one read from the device for all images
    columns = zip(*(row for each in processes.gather_to_rank_zero(own) for row in each), strict=True)
    return {name: _mean(column) for name, column in zip(names, columns, strict=False)}  # no columns but on the first


def describe_losses(losses: Mapping[str, float | None]) -> str:
    """The same in a line."""
    values = {name: "not finite" if value is None else f"{value:.3f}" for name, value in losses.items()}
    return "validation: " + "  ".join(f"{name} {value}" for name, value in values.items())


def _mean(values: Sequence[float]) -> float | None:
    """To the last bit the same in any order."""
    mean = math.fsum(values) / len(values)
    return mean if math.isfinite(mean) else None
