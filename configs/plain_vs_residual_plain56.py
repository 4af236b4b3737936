"""Plain and residual networks compared, 2 of 4: 56 layers without shortcuts.

    python tools/train.py configs/plain_vs_residual_plain56.py

Loss 2.07, top-1 accuracy 16.2 after 14 min 37 s. See `plain_vs_residual_plain20` for the comparison.
"""

from vertebra.configs.plain_vs_residual_plain20 import plain_vs_residual

CONFIG = plain_vs_residual("plain56")
