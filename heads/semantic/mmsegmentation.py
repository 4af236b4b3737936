"""Head configs with the conventions of MMSegmentation's models, for its pretrained weights."""

from .base import AuxiliaryConfig
from .deeplab import DeepLabConfig, LowLevelConfig
from .fcn import FCNConfig

MMSEGMENTATION_DEEPLAB = DeepLabConfig(
    channels=512, convolutions=0, project_kernel=3, auxiliary=AuxiliaryConfig(weight=0.4)
)
"""The head of ``deeplabv3_*-d8``, for a backbone with ``output_stride=8``."""

MMSEGMENTATION_DEEPLAB_PLUS = MMSEGMENTATION_DEEPLAB.replace(low_level=LowLevelConfig(), convolutions=2, separable=True)
"""The head of ``deeplabv3plus_*-d8``, for a backbone with ``output_stride=8``."""

MMSEGMENTATION_FCN = FCNConfig(convolutions=2, concatenate=True, auxiliary=AuxiliaryConfig(weight=0.4))
"""The head of ``fcn_*-d8``, for a backbone with ``output_stride=8``."""
