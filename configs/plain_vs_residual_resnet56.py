"""Plain against residual, 4 of 4: 56 layers with shortcuts.

    python tools/train.py configs/plain_vs_residual_resnet56.py

Loss 1.58, top-1 40.4 after 14 min 46 s. `plain_vs_residual_plain20` compares the four.
"""

from vertebra.configs.plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("resnet56")
