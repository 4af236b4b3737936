"""Plain and residual networks compared, 4 of 4: 56 layers with shortcuts.

    python tools/train.py configs/plain_vs_residual_resnet56.py

Loss 1.58, top-1 accuracy 40.4 after 14 min 46 s. See `plain_vs_residual_plain20` for the comparison.
"""

from vertebra.configs.plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("resnet56")
