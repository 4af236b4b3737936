"""Plain against residual, 4 of 4: 56 layers with shortcuts.

    python tools/train.py configs/plain_vs_residual_resnet56.py

The note is in `plain_vs_residual_plain20`. Not yet run by us.
"""

from .plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("resnet56")
