"""Necks: modules that turn a backbone's feature maps into the pyramid that heads read (layer 3).

Importing this package registers the built-in necks in ``NECKS``.
"""

from .base import NECKS, Neck
from .bifpn import BiFPN, BiFPNConfig
from .default import default_neck
from .fpn import FPN, FPNConfig
from .nas_fpn import NASFPN, NASFPNConfig
from .pafpn import PAFPN, PAFPNConfig
from .passthrough import Passthrough, PassthroughConfig
from .simple_pyramid import SimplePyramid, SimplePyramidConfig

__all__ = [
    "FPN",
    "NASFPN",
    "NECKS",
    "PAFPN",
    "BiFPN",
    "BiFPNConfig",
    "FPNConfig",
    "NASFPNConfig",
    "Neck",
    "PAFPNConfig",
    "Passthrough",
    "PassthroughConfig",
    "SimplePyramid",
    "SimplePyramidConfig",
    "default_neck",
]
