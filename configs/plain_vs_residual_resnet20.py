"""Plain and residual networks compared, 3 of 4: 20 layers with shortcuts.

    python tools/train.py configs/plain_vs_residual_resnet20.py

Loss 1.38, top-1 accuracy 46.6 after 10 min 03 s. See `plain_vs_residual_plain20` for the comparison.
"""

from vertebra.configs.plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("resnet20")
