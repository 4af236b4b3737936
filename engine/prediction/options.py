"""Options of the prediction of files."""

from pathlib import Path

from pydantic import PositiveInt

from ...inference import DrawingConfig, Predictor, default_workers
from ...structures import Config, UnitInterval


class PredictionOptions(Config):
    """Options of the prediction of files."""

    score: UnitInterval = 0.5
    """Predictions with at least this score are drawn and described; the results have all of them."""
    annotations: Path | None = None
    """A COCO file whose image ids (matched by file name) and category ids (matched by class name) the results get."""
    pictures: bool = True
    """Whether to draw a picture of each image."""
    drawing: DrawingConfig = DrawingConfig()
    """How pictures are drawn."""
    crops: bool = False
    """Whether to write the part of the image inside the box of each object to the folder ``crops``."""
    batch_size: PositiveInt | None = None
    """Number of images that are predicted together; None takes that of the predictor."""
    workers: PositiveInt | None = None
    """Number of threads that decode, and of those that draw and encode; None takes the number of cores minus one."""
    resume: bool = False
    """Whether to continue the prediction in the output folder: images that are done are skipped."""

    def images_per_batch(self, predictor: Predictor) -> int:
        """Return the number of images that are predicted together."""
        return self.batch_size or predictor.batch_size

    def threads(self) -> int:
        """Return the number of threads that decode, and of those that draw and encode."""
        return self.workers or default_workers()
