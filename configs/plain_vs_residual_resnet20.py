"""Plain against residual, 3 of 4: 20 layers with shortcuts.

    python tools/train.py configs/plain_vs_residual_resnet20.py

Loss 1.38, top-1 46.6 after 10 min 03 s. `plain_vs_residual_plain20` compares the four.
"""

from vertebra.configs.plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("resnet20")
