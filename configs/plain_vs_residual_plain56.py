"""Plain against residual, 2 of 4: 56 layers without shortcuts.

    python tools/train.py configs/plain_vs_residual_plain56.py

The note is in `plain_vs_residual_plain20`. Not yet run by us.
"""

from .plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("plain56")
