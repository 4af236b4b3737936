"""Export of trained models to files that other programs run, and prediction with these files."""

from .description import Description
from .export import ExportConfig, export_model
from .exported_model import ExportedFile, ExportedModel, load_for_prediction, open_exported
from .verify import BOUNDS, Verification, verify_export
from .writers import WRITERS, Format

__all__ = [
    "BOUNDS",
    "WRITERS",
    "Description",
    "ExportConfig",
    "ExportedFile",
    "ExportedModel",
    "Format",
    "Verification",
    "export_model",
    "load_for_prediction",
    "open_exported",
    "verify_export",
]
