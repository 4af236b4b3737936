"""The tensor names of other libraries' models: one table per library, which translates in both directions."""

from .key_map import BATCH_COUNTER, Change, KeyMap, Rule

__all__ = ["BATCH_COUNTER", "Change", "KeyMap", "Rule"]
