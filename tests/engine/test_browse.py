"""The page of samples as the model sees them."""

import base64
import re

import cv2
import numpy as np
import torch

from vertebra.data import LoaderConfig, build_dataset, train_loader
from vertebra.engine.doctor.browse import draw_truth, render_samples
from vertebra.structures import Instances
from vertebra.tools.cli import main

from ..helpers.tiny import tiny_classifier, tiny_config


def pictures(page: str) -> list[np.ndarray]:
    """Return the pictures of a page."""
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB) for data in encoded]


def test_samples_are_those_of_the_first_training_steps(shapes):
    """Law: the sizes and the means of the pictures are those of the batches of the training's own loader."""
    experiment = tiny_config(shapes)
    page = render_samples(experiment, "train", 5, augmented=True)
    recipe, split = experiment.recipe, experiment.train
    batches = train_loader(
        build_dataset(split.dataset), split.transform, LoaderConfig(workers=0), batch_size=recipe.batch_size,
        divisor=1, seed=recipe.seed, start_step=0, end_step=recipe.schedule.steps, sampling=split.sampling,
    )  # fmt: skip
    images = []
    for batch in batches:
        for index, (height, width) in enumerate(batch.images.size_list()):
            images.append(batch.images.pixels[index, :, :height, :width].permute(1, 2, 0).numpy())
    found = pictures(page)
    assert len(found) == 5 and page.count("<figure>") == 5 and "http" not in page
    for picture, image in zip(found, images, strict=False):
        assert picture.shape == image.shape
        assert np.quantile(np.abs(picture.astype(int) - image), 0.25) <= 12  # where no mask or line is drawn


def test_masks_of_objects_are_drawn():
    """By hand: the inside of a mask has another color than the rest of a gray image."""
    masks = torch.zeros(1, 60, 60, dtype=torch.bool)
    masks[0, 20:40, 20:40] = True
    truth = Instances(torch.tensor([[20.0, 20.0, 40.0, 40.0]]), torch.tensor([0]), masks=masks)
    picture = draw_truth(np.full((60, 60, 3), 128, np.uint8), truth, ("cat",))
    assert (picture[30, 30] != 128).any() and (picture[55, 5] == 128).all()


def test_class_maps_and_the_class_of_an_image_are_shown(tmp_path):
    """By hand: the legend of a class map is below the image; the class of an image is in the caption."""
    maps = np.zeros((40, 200), np.int64)
    picture = draw_truth(np.zeros((40, 200, 3), np.uint8), torch.from_numpy(maps), ("sky", "road"))
    assert picture.shape[0] > 40 and picture.shape[1] == 200
    page = render_samples(tiny_classifier(), "val", 1, augmented=False)
    assert "32 x 32 pixels, " in page


def test_command_writes_the_page(tmp_path, shapes, capsys):
    """By hand: the config as JSON; augmented validation images are refused."""
    (tmp_path / "mine.json").write_text(tiny_config(shapes).model_dump_json())
    arguments = ["browse", str(tmp_path / "mine.json"), "--count", "2", "--out", str(tmp_path / "page.html")]
    assert main(arguments) == 0
    assert (tmp_path / "page.html").read_text().count("<figure>") == 2
    assert main([*arguments, "--augmented", "--split", "val"]) == 2
    assert "leave out --augmented" in capsys.readouterr().err
