"""Making a recipe: from paths to data and a model to the config of an experiment, with a reason for each choice."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

from ...data import DataPath, build_dataset, pair_from_paths, require_objects
from ...inference import InferenceConfig, open_model
from ...models import ModelConfig, describe_class_mapping
from ...structures import Classes, UsageError
from ..config import ExperimentConfig
from ..tasks import require_classes
from .choices import Decider, Decision, UserChanges
from .facts import find_oddities, read_facts
from .rules import RULES, TARGET_RULES, need_classes_of_training, order_classes
from .source import config_file_source
from .stock import STOCK_MODEL, adapt_experiment, require_known_task, stock_experiment

FILE_NAME = "recipe.py"
"""The name of the config file in the run folder."""


@dataclass(frozen=True, slots=True)
class RecipeRequest:
    """A request for a recipe: the data, and the model to start from."""

    data: Path
    """A COCO file, a VOC folder, or data in another format of :mod:`vertebra.data.from_path`."""
    val: Path | None = None
    """The validation data; None: those that ``data`` lists, or a fifth of its images."""
    images: Path | None = None
    """The folder of the images of a COCO file; None: found beside it."""
    data_format: str | None = None
    """The name of the data's format; None: found from what lies there."""
    weights: str | None = None
    """A trained model to start from, see :func:`vertebra.inference.open_model`."""
    like: str | None = None
    """The published model whose tensor names the file ``weights`` has; None if ``weights`` describes its model."""
    model: ExperimentConfig | None = None
    """An experiment whose model and training are the defaults, in place of ``weights``."""
    changes: UserChanges = field(default_factory=UserChanges)


@dataclass(frozen=True, slots=True)
class Recipe:
    """An experiment made from data, and how it came about."""

    config: ExperimentConfig
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]
    """Lines about the data and the classes."""

    def describe(self) -> str:
        """Describe the notes and every decision, one line each."""
        width = max(len(decision.field) for decision in self.decisions)
        lines = [f"{decision.field:<{width}}  {decision.describe()}" for decision in self.decisions]
        return "\n".join([*self.notes, *lines])

    def source(self) -> str:
        """Return the source of a config file that gives the same experiment, with the reasons as comments."""
        notes = "\n".join(self.notes)
        docstring = (
            f"Fine-tuning on {self.config.name}, as `vertebra train --data` chose it from the data.\n\n"
            f"Train it with `vertebra train {FILE_NAME}`; edit it as you like.\n\n{notes}"
        )
        comments = {decision.field: decision.describe() for decision in self.decisions}
        return config_file_source(self.config, docstring, comments)


def make_recipe(request: RecipeRequest) -> Recipe:
    """Open the data, choose the fields of the experiment, and return the recipe.

    Raises UsageError or DataError if the request, the data or the model do not fit together.
    """
    if request.weights is not None and request.model is not None:
        raise UsageError("both weights and a model are given", "leave one out: weights come with their model")
    start = None if request.weights is None else open_start(request.weights, request.like)
    base, notes = _base_experiment(request, start)
    decider = Decider(base, request.changes)
    decider.apply(TARGET_RULES)
    train_set, val_set = (
        build_dataset(split.dataset, split.bad_data) for split in (decider.config.train, decider.config.val)
    )
    if need_classes_of_training(train_set, val_set):
        decider.apply((functools.partial(order_classes, train_set.classes[train_set.task].names),))
        val_set = build_dataset(decider.config.val.dataset, decider.config.val.bad_data)
    require_objects(train_set)
    require_classes(decider.config.model.head, train_set.classes, val_set.classes)
    facts = read_facts(train_set, val_set)
    decider.apply(functools.partial(rule, facts) for rule in RULES)
    decider.finish()
    notes += [facts.describe(), *find_oddities(train_set, val_set, facts)]
    if start is not None:
        names, source_names = (
            {task: classes.names for task, classes in group.items()} for group in (train_set.classes, start[1])
        )
        notes.append(f"classes: {describe_class_mapping(names, source_names)}")
    return Recipe(request.changes.apply(decider.config), tuple(decider.decisions), tuple(notes))


def _base_experiment(
    request: RecipeRequest, start: tuple[InferenceConfig, dict[str, Classes]] | None
) -> tuple[ExperimentConfig, list[str]]:
    """Return the experiment before any choice, and the lines that say where its data come from."""
    model, preprocessing = STOCK_MODEL, None
    if request.model is not None:
        model = request.model.model
    elif start is not None:
        model, preprocessing = start[0].model, start[0].preprocessing
    task = require_known_task(model)
    datasets = pair_from_paths(DataPath(request.data, task, request.images, request.data_format), request.val)
    name = name_of_data(request.data)
    if request.model is not None:
        base = adapt_experiment(name, request.model, datasets)
    else:
        base = stock_experiment(name, model, datasets, preprocessing)
    return base, [datasets.description]


def open_start(weights: str, like: str | None) -> tuple[InferenceConfig, dict[str, Classes]]:
    """Return the config of a trained model, set up to start from its weights, and the classes of its labels."""
    trained = open_model(weights, like)
    inference = trained.inference
    model: ModelConfig = inference.model.replace(weights=None, start_from=weights, start_from_like=like)
    return inference.replace(model=model), dict(trained.classes)


def name_of_data(path: Path) -> str:
    """Return the name of an experiment on data at a path: that of the folder that the data set as a whole has."""
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return folder.parent.name if folder.name in ("annotations", "labels") else folder.name
