"""The data set doctor: examines the images and annotations of all splits, and says what is wrong and how to fix it."""

from .examine import describe_quickly, examine
from .findings import Diagnosis, Example, Finding
from .splits import DataSource

__all__ = ["DataSource", "Diagnosis", "Example", "Finding", "describe_quickly", "examine"]
