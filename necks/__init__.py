"""Floor 3: pyramid -> pyramid. The imports below fill the registry."""

from .base import Neck, necks
from .fpn import FPN, FPNConfig
from .passthrough import Passthrough, PassthroughConfig

__all__ = ["FPN", "FPNConfig", "Neck", "Passthrough", "PassthroughConfig", "necks"]
