"""Plain against residual, 3 of 4: 20 layers with shortcuts.

    python tools/train.py configs/plain_vs_residual_resnet20.py

The note is in `plain_vs_residual_plain20`. Not yet run by us.
"""

from .plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("resnet20")
