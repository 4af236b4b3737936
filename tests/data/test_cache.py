"""The cache of opened data sets: used only for the very same files, shared by processes, never needed."""

import json
import multiprocessing
import os
import pickle
import shutil
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from vertebra.data import (
    CocoConfig,
    CocoDataset,
    DataReport,
    ImageFolderConfig,
    Policy,
    build_dataset,
    cache,
    file_checks,
    image_folder,
)
from vertebra.data.coco_format import opening
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, open_tiny, tiny_content, write_tiny
from .test_image_folder import write_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own, in which files of any size are kept."""
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "MIN_CACHED_BYTES", 0)
    return tmp_path / "cache"


def entries(own_cache: Path) -> list[Path]:
    return sorted(own_cache.glob("datasets/*/[0-9]*"))


def with_polygons() -> dict:
    """The tiny file with an outline for each object, one of which is drawn as run lengths."""
    content = tiny_content()
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
    content["annotations"][3]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [1000, 500, 4644]}
    return content


def describe(dataset: CocoDataset) -> str:
    """All that a data set says of its images."""
    records = [dataset.read(index) for index in range(len(dataset))]
    objects = [record.objects for record in records if record.objects is not None]
    masks = [None if each.masks is None else each.masks.tolist() for each in objects]
    outlines = [
        None
        if each.polygon_masks is None
        else [(mask.edges.tolist(), mask.parts.tolist()) for mask in each.polygon_masks]
        for each in objects
    ]
    boxes = [(each.boxes.tolist(), each.labels.tolist(), each.ignored.tolist()) for each in objects]
    files = [(record.image_id, record.file) for record in records]
    tables = (dataset.image_ids, dataset.class_names, dataset.category_ids, dataset.sizes.tolist())
    return repr((
        files, boxes, masks, outlines, tables, dataset.image_labels().tolist(), dataset.ground_truth(),
        dataset.annotation_digest(), dataset.report.as_json(),
    ))  # fmt: skip


def open_again(folder: Path, policy: Policy = "error", **changes) -> CocoDataset:
    """Open the tiny data set as it lies there."""
    return CocoDataset(policy, CocoConfig(images=folder / "images", annotations=folder / "annotations.json", **changes))


def count_calls(monkeypatch, module, name: str) -> list[str]:
    """Replace a function of a module by itself with a list of the paths that it is called with from now on."""
    function, paths = getattr(module, name), []

    def counted(path, *arguments):
        paths.append(str(path))
        return function(path, *arguments)

    monkeypatch.setattr(module, name, counted)
    return paths


@pytest.mark.parametrize("changes", [{}, {"masks": True}, {"masks": True, "mask_format": "polygons"}])
def test_the_second_opening_gives_the_same_data_set_unread(changes, tmp_path, monkeypatch):
    """A law: images, objects, masks, report and ground truth are equal, and the annotations are not read again."""
    content = with_polygons()
    content["annotations"][0]["bbox"] = [10, 10, -5, 5]
    write_tiny(tmp_path, content)
    first = describe(open_again(tmp_path, "skip", **changes))
    reads = count_calls(monkeypatch, opening, "read_coco_file")
    second = open_again(tmp_path, "skip", **changes)
    assert second.annotations.entry is not None
    assert describe(second) == first and "negative-box" in first
    assert reads == []


def test_other_settings_have_entries_of_their_own(tmp_path, own_cache):
    """A law: what decides which objects and images are used is part of an entry's name."""
    write_tiny(tmp_path)
    for changes in ({}, {"class_names": ("dog",)}, {"subset": 2}, {"min_box": 9.0}, {"keep_empty": False}):
        assert describe(open_again(tmp_path, **changes)) == describe(open_again(tmp_path, **changes))
    assert len(open_again(tmp_path, subset=2)) == 2
    assert len(entries(own_cache)) == 5


def change_annotations(folder: Path) -> None:
    """Another number in the annotation file, which is as long and as old as before."""
    file = folder / "annotations.json"
    stat = file.stat()
    file.write_text(file.read_text().replace('"bbox": [5, 6, 7, 8]', '"bbox": [4, 6, 7, 8]'))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def touch_image(folder: Path) -> None:
    os.utime(folder / "images" / "12.png", ns=(1, 1))


def replace_image(folder: Path) -> None:
    """Another image of the same size in pixels, as old as the one before."""
    file = folder / "images" / "12.png"
    stat = file.stat()
    shutil.copy(folder / "images" / "13.png", file)
    with file.open("ab") as end:
        end.write(b"more")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [change_annotations, touch_image, replace_image])
def test_a_changed_file_is_noticed(change, tmp_path, monkeypatch):
    """Hand-made: after the change the files are looked at anew, and after that no more."""
    config = write_tiny(tmp_path)
    open_again(tmp_path)
    change(tmp_path)
    reads = count_calls(monkeypatch, opening, "read_coco_file")
    for _ in range(2):
        assert open_again(tmp_path).annotation_digest() == opening.digest_file(config.annotations)
    assert len(reads) == 1


def test_a_removed_image_is_noticed_and_so_is_its_return(tmp_path):
    """Hand-made: the strict policy stops at a missing image, although the cache knows it; skipped, it comes back."""
    write_tiny(tmp_path)
    open_again(tmp_path)
    image, away = tmp_path / "images" / "12.png", tmp_path / "12.png"
    image.rename(away)
    with pytest.raises(DataError, match=r"missing-image: .*12\.png"):
        open_again(tmp_path)
    assert open_again(tmp_path, "skip").image_ids == [11, 13, 14]
    away.rename(image)
    assert open_again(tmp_path, "skip").image_ids == [11, 12, 13, 14]


def flip_a_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_entry_is_built_anew(tmp_path, own_cache):
    """A law: the data set is the same whichever file of an entry has a flipped bit at an end, is cut or is gone."""
    write_tiny(tmp_path, with_polygons())
    expected = describe(open_again(tmp_path, masks=True))
    names = [file.name for file in entries(own_cache)[0].iterdir()]
    damages = [
        lambda path: flip_a_bit(path, 0),
        lambda path: flip_a_bit(path, -1),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ]
    assert len(names) > 10
    for damage in damages:
        for name in names:
            (entry,) = entries(own_cache)
            damage(entry / name)
            assert describe(open_again(tmp_path, masks=True)) == expected
            assert entries(own_cache) != [entry], f"{name} was trusted"


def test_a_cache_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    """Hand-made: a file stands where the folder would be; the summary says that nothing is kept."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "file" / "cache"))
    dataset = open_tiny(tmp_path)
    assert dataset.annotations.entry is None and len(dataset.read(0).objects.boxes) == 2
    assert "the checks are not cached" in dataset.report.summary()


def test_a_full_disk_is_no_error(tmp_path, own_cache, monkeypatch):
    """Hand-made: the arrays cannot be written; nothing is left of the attempt."""

    def refuse(*_, **__) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", refuse)
    dataset = open_tiny(tmp_path)
    assert "No space left on device" in dataset.report.summary() and len(dataset) == 4
    assert entries(own_cache) == [] and not list(own_cache.glob("datasets/*/.writing*"))


def test_small_files_are_not_kept(tmp_path, own_cache, monkeypatch):
    """Hand-made: reading a kilobyte takes no longer than finding what was kept of it."""
    monkeypatch.setattr(opening, "MIN_CACHED_BYTES", 2**20)
    assert open_tiny(tmp_path).annotations.entry is None
    assert not own_cache.exists()


def test_a_pickled_data_set_is_the_name_of_its_entry(tmp_path):
    """A law: a process that is spawned maps the same files; unpickled, the data set is the same."""
    dataset = open_tiny(tmp_path, with_polygons(), masks=True)
    sent = pickle.dumps(dataset.annotations)
    assert len(sent) < 1000
    assert describe(pickle.loads(pickle.dumps(dataset))) == describe(dataset)


def test_an_entry_that_is_gone_is_named(tmp_path):
    """Hand-made: exit code 3 in a process that starts after the cache was emptied."""
    dataset = open_tiny(tmp_path)
    sent = pickle.dumps(dataset)
    shutil.rmtree(dataset.annotations.entry)
    with pytest.raises(DataError, match="the cache entry of this data set is gone"):
        pickle.loads(sent)


def test_entries_that_nobody_uses_are_removed(tmp_path, own_cache):
    """Hand-made: an entry of other data after a month, a replaced one after a day, one in use never."""
    open_tiny(tmp_path / "old")
    open_tiny(tmp_path / "used")
    open_tiny(tmp_path / "changed")
    old, used, changed = sorted(entries(own_cache), key=lambda entry: entry.name)
    for entry, days in ((old, 31), (used, 29), (changed, 2)):
        facts = entry / cache.FACTS
        past = facts.stat().st_mtime - days * 24 * 3600
        os.utime(facts, (past, past))
    touch_image(tmp_path / "changed")
    newest = open_again(tmp_path / "changed").annotations.entry
    assert set(entries(own_cache)) == {used, newest}


def _open_in_a_process(folder: Path, barrier: Barrier, log: Path, first_dies: bool) -> None:
    """Open the tiny data set together with other processes, and write down who builds it and what came of it.

    The one that builds begins when all have come to the lock.
    """
    opening.MIN_CACHED_BYTES = 0
    read, acquire = opening.read_coco_file, cache.filelock.FileLock.acquire

    def tell(line: str) -> int:
        with log.open("a") as file:
            file.write(f"{line}\n")
        return log.read_text().count(line)

    def read_when_all_wait(path):
        count = tell("built")
        while log.read_text().count("waits") < 3:
            time.sleep(0.01)
        if first_dies and count == 1:
            os._exit(1)
        return read(path)

    def acquire_and_tell(lock):
        tell("waits")
        return acquire(lock)

    opening.read_coco_file, cache.filelock.FileLock.acquire = read_when_all_wait, acquire_and_tell
    barrier.wait(60)
    try:
        dataset = open_again(folder)
        tell(f"opened {len(dataset)} {dataset.annotations.entry is not None}")
    except DataError as error:
        tell(str(error))


def open_by_three_processes(folder: Path, first_dies: bool = False) -> list[str]:
    """Return what three processes that open the data set at once wrote down."""
    context, log = multiprocessing.get_context("fork"), folder / "log"
    barrier = context.Barrier(3)
    processes = [context.Process(target=_open_in_a_process, args=(folder, barrier, log, first_dies)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return sorted(line for line in log.read_text().splitlines() if line != "waits")


def test_of_processes_that_open_at_once_one_builds(tmp_path):
    """A law: the others wait, and all map the same entry."""
    write_tiny(tmp_path)
    assert open_by_three_processes(tmp_path) == ["built", *["opened 4 True"] * 3]


def test_an_error_is_met_once_for_all_that_wait(tmp_path):
    """A law: the processes that waited raise the same line, without looking for it themselves."""
    content = tiny_content()
    content["annotations"][1]["bbox"] = [40, 8, -5, 30]
    write_tiny(tmp_path, content)
    built, *errors = open_by_three_processes(tmp_path)
    assert built == "built" and len(errors) == 3 and len(set(errors)) == 1
    assert errors[0].startswith("negative-box: ") and "ann_id=2" in errors[0]
    content["annotations"][1]["bbox"] = [40, 8, 5, 30]
    assert len(open_tiny(tmp_path, content)) == 4


def test_a_process_that_dies_while_it_builds_holds_up_nobody(tmp_path, own_cache):
    """A law: the next in line builds, and what the dead one left is no entry."""
    write_tiny(tmp_path)
    assert open_by_three_processes(tmp_path, first_dies=True) == ["built", "built", *["opened 4 True"] * 2]
    assert len(entries(own_cache)) == 1


def test_the_arrays_are_the_systems_own_pages(tmp_path):
    """Hand-made: an array is a view of a mapped file, which cannot be written to."""
    boxes = open_tiny(tmp_path).annotations.boxes
    while isinstance(boxes.base, np.ndarray):
        assert not boxes.flags.writeable
        boxes = boxes.base
    assert type(boxes.base).__name__ == "mmap"


def test_a_report_keeps_all_that_was_found():
    """A law: a new report to which another's state is added is that report; a second time the counts are summed."""
    report = DataReport("skip", "file")
    report.read["images"] = 3
    report.skip("images", "gone", "a")
    report.note("odd", 7)
    report.warnings.append("warning: x")
    report.rejected_rows.add(2)
    other = DataReport("skip", "file")
    other.add(json.loads(json.dumps(report.state())))
    assert other.as_json() == report.as_json() and other.rejected_rows == {2}
    other.add(report.state())
    assert other.read["images"] == 6 and other.noted["odd"].ids == [7, 7]


def test_the_cache_folder_can_be_moved(monkeypatch, tmp_path):
    """Hand-made: its own variable comes before the system's, and that before the home folder."""
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("VERTEBRA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_folder() == Path("/xdg/vertebra")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "vertebra"


def test_image_files_in_folders_of_classes_are_looked_at_once(tmp_path, monkeypatch, own_cache):
    """By hand: the files are opened by the first opening, and again once one of them has changed; what was wrong with
    one is reported by all openings."""
    monkeypatch.setattr(file_checks, "MIN_CACHED_FILES", 0)
    root = write_folder(tmp_path / "photos")
    (root / "cat" / "cut.png").write_bytes((root / "cat" / "b.png").read_bytes()[:50])
    config = ImageFolderConfig(root=root)
    files = count_calls(monkeypatch, image_folder, "check_image")
    first, second = (build_dataset(config, "skip") for _ in range(2))
    assert len(files) == 7 and len(entries(own_cache)) == 1
    assert first.report.as_json() == second.report.as_json() and first.image_ids == second.image_ids
    assert second.report.as_json()["skipped"]["images"]["damaged-image"]["ids"] == ["cat/cut.png"]
    os.utime(root / "dog" / "a.png", ns=(1, 1))
    assert build_dataset(config, "skip").report.as_json() == first.report.as_json() and len(files) == 14
    shutil.copy(root / "dog" / "a.png", root / "dog" / "new.png")
    assert len(build_dataset(config, "skip")) == len(first) + 1
