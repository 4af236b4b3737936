"""Recipes: experiments chosen from the data, field by field, each with a reason; and ``vertebra.train``."""

from .choices import Choice, Decision, UserChanges
from .facts import DataFacts, read_facts
from .make import Recipe, RecipeRequest, make_recipe
from .train import announce_recipe, train_run

__all__ = [
    "Choice",
    "DataFacts",
    "Decision",
    "Recipe",
    "RecipeRequest",
    "UserChanges",
    "announce_recipe",
    "make_recipe",
    "read_facts",
    "train_run",
]
