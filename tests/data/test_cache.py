"""The cache of opened data sets: reused only if no file changed, shared between processes, and never required."""

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
from vertebra.data.coco_format import opening, source
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, open_tiny, tiny_content, write_tiny
from .test_image_folder import write_folder


@pytest.fixture(autouse=True)
def temporary_cache(tmp_path, monkeypatch) -> Path:
    """Return a cache folder of the test's own, in which data sets of any size are cached."""
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "MIN_CACHED_BYTES", 0)
    return tmp_path / "cache"


def cache_entries(temporary_cache: Path) -> list[Path]:
    """Return the folders of the cached data sets."""
    return sorted(temporary_cache.glob("datasets/*/[0-9]*"))


def with_polygons() -> dict:
    """Return the content of the tiny file with a mask for each object: polygons, and one RLE."""
    content = tiny_content()
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
    content["annotations"][3]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [1000, 500, 4644]}
    return content


def dump_dataset(dataset: CocoDataset) -> str:
    """Return everything that can be read from a data set as one string, for comparison."""
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


def open_existing(folder: Path, policy: Policy = "error", **changes) -> CocoDataset:
    """Open the tiny data set whose files are in a folder already."""
    return CocoDataset(policy, CocoConfig(images=folder / "images", annotations=folder / "annotations.json", **changes))


def record_calls(monkeypatch, module, name: str) -> list[str]:
    """Wrap a function of a module, and return a list to which the path of every later call is added."""
    function, paths = getattr(module, name), []

    def counted(path, *arguments):
        paths.append(str(path))
        return function(path, *arguments)

    monkeypatch.setattr(module, name, counted)
    return paths


@pytest.mark.parametrize("changes", [{}, {"masks": True}, {"masks": True, "mask_format": "polygons"}])
def test_cached_data_set_equals_the_first_without_reading_annotations(changes, tmp_path, monkeypatch):
    """Law: images, objects, masks, report and ground truth are equal, and the annotation file is not parsed again."""
    content = with_polygons()
    content["annotations"][0]["bbox"] = [10, 10, -5, 5]
    write_tiny(tmp_path, content)
    first = dump_dataset(open_existing(tmp_path, "skip", **changes))
    reads = record_calls(monkeypatch, source, "read_coco_file")
    second = open_existing(tmp_path, "skip", **changes)
    assert second.annotations.entry is not None
    assert dump_dataset(second) == first and "negative-box" in first
    assert reads == []


def test_each_setting_has_its_own_cache_entry(tmp_path, temporary_cache):
    """Law: every setting that decides which objects and images are used is part of an entry's name."""
    write_tiny(tmp_path)
    for changes in ({}, {"class_names": ("dog",)}, {"subset": 2}, {"min_box": 9.0}, {"keep_empty": False}):
        assert dump_dataset(open_existing(tmp_path, **changes)) == dump_dataset(open_existing(tmp_path, **changes))
    assert len(open_existing(tmp_path, subset=2)) == 2
    assert len(cache_entries(temporary_cache)) == 5


def change_annotations(folder: Path) -> None:
    """Change a number in the annotation file, without changing its length or modification time."""
    file = folder / "annotations.json"
    stat = file.stat()
    file.write_text(file.read_text().replace('"bbox": [5, 6, 7, 8]', '"bbox": [4, 6, 7, 8]'))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def touch_image(folder: Path) -> None:
    os.utime(folder / "images" / "12.png", ns=(1, 1))


def replace_image(folder: Path) -> None:
    """Replace an image by another of the same size in pixels, without changing its modification time."""
    file = folder / "images" / "12.png"
    stat = file.stat()
    shutil.copy(folder / "images" / "13.png", file)
    with file.open("ab") as end:
        end.write(b"more")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [change_annotations, touch_image, replace_image])
def test_changed_file_invalidates_the_cache(change, tmp_path, monkeypatch):
    """By hand: after the change the annotations are read once, and not again at the next opening."""
    config = write_tiny(tmp_path)
    open_existing(tmp_path)
    change(tmp_path)
    reads = record_calls(monkeypatch, source, "read_coco_file")
    for _ in range(2):
        assert open_existing(tmp_path).annotation_digest() == source.digest_file(config.annotations)
    assert len(reads) == 1


def test_removed_and_restored_image_is_noticed(tmp_path):
    """By hand: with bad_data=error a missing image is an error, although the data set is cached; with skip it is left
    out until its file is back."""
    write_tiny(tmp_path)
    open_existing(tmp_path)
    image, away = tmp_path / "images" / "12.png", tmp_path / "12.png"
    image.rename(away)
    with pytest.raises(DataError, match=r"missing-image: .*12\.png"):
        open_existing(tmp_path)
    assert open_existing(tmp_path, "skip").image_ids == [11, 13, 14]
    away.rename(image)
    assert open_existing(tmp_path, "skip").image_ids == [11, 12, 13, 14]


def flip_a_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_damaged_cache_entry_is_rebuilt(tmp_path, temporary_cache):
    """Law: the data set is the same whichever file of an entry has a flipped bit, is truncated, empty or missing."""
    write_tiny(tmp_path, with_polygons())
    expected = dump_dataset(open_existing(tmp_path, masks=True))
    names = [file.name for file in cache_entries(temporary_cache)[0].iterdir()]
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
            (entry,) = cache_entries(temporary_cache)
            damage(entry / name)
            assert dump_dataset(open_existing(tmp_path, masks=True)) == expected
            assert cache_entries(temporary_cache) != [entry], f"{name} was trusted"


def test_unwritable_cache_folder_is_no_error(tmp_path, monkeypatch):
    """By hand: a file is in the place of the cache folder; the summary says that nothing was cached."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "file" / "cache"))
    dataset = open_tiny(tmp_path)
    assert dataset.annotations.entry is None and len(dataset.read(0).objects.boxes) == 2
    assert "the checks are not cached" in dataset.report.summary()


def test_full_disk_while_caching_is_no_error(tmp_path, temporary_cache, monkeypatch):
    """By hand: the arrays cannot be written, and no partial entry remains."""

    def refuse(*_, **__) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", refuse)
    dataset = open_tiny(tmp_path)
    assert "No space left on device" in dataset.report.summary() and len(dataset) == 4
    assert cache_entries(temporary_cache) == [] and not list(temporary_cache.glob("datasets/*/.writing*"))


def test_file_system_without_locks_is_no_error(tmp_path, temporary_cache, monkeypatch):
    """By hand: filelock's error for such a file system; the data set opens, and the report says so."""

    def refuse(lock) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(cache.filelock.FileLock, "acquire", refuse)
    dataset = open_tiny(tmp_path)
    assert "support flock" in dataset.report.summary() and len(dataset) == 4 and cache_entries(temporary_cache) == []


def test_small_files_are_not_cached(tmp_path, temporary_cache, monkeypatch):
    """By hand: a file of a kilobyte is read faster than its cache entry."""
    monkeypatch.setattr(opening, "MIN_CACHED_BYTES", 2**20)
    assert open_tiny(tmp_path).annotations.entry is None
    assert not temporary_cache.exists()


def test_pickled_data_set_refers_to_its_cache_entry(tmp_path):
    """Law: the pickle is small, since a spawned process maps the same files; the unpickled data set is equal."""
    dataset = open_tiny(tmp_path, with_polygons(), masks=True)
    sent = pickle.dumps(dataset.annotations)
    assert len(sent) < 1000
    assert dump_dataset(pickle.loads(pickle.dumps(dataset))) == dump_dataset(dataset)


def test_missing_cache_entry_is_an_error_when_unpickling(tmp_path):
    """By hand: exit code 3 in a process that starts after the cache was emptied."""
    dataset = open_tiny(tmp_path)
    sent = pickle.dumps(dataset)
    shutil.rmtree(dataset.annotations.entry)
    with pytest.raises(DataError, match="the cache entry of this data set is gone"):
        pickle.loads(sent)


def test_unused_cache_entries_are_removed(tmp_path, temporary_cache):
    """By hand: an entry of other data is removed after a month, a replaced one after a day, and one in use never."""
    open_tiny(tmp_path / "old")
    open_tiny(tmp_path / "used")
    open_tiny(tmp_path / "changed")
    old, used, changed = sorted(cache_entries(temporary_cache), key=lambda entry: entry.name)
    for entry, days in ((old, 31), (used, 29), (changed, 2)):
        facts = entry / cache.FACTS
        past = facts.stat().st_mtime - days * 24 * 3600
        os.utime(facts, (past, past))
    touch_image(tmp_path / "changed")
    newest = open_existing(tmp_path / "changed").annotations.entry
    assert set(cache_entries(temporary_cache)) == {used, newest}


def _open_in_a_process(folder: Path, barrier: Barrier, log: Path, first_dies: bool) -> None:
    """Open the tiny data set together with other processes, and log who builds the entry and what each process got.

    The process that builds waits until all processes have asked for the lock.
    """
    opening.MIN_CACHED_BYTES = 0
    read, acquire = source.read_coco_file, cache.filelock.FileLock.acquire

    def log_line(line: str) -> int:
        """Append a line to the log, and return how often the log has this line."""
        with log.open("a") as file:
            file.write(f"{line}\n")
        return log.read_text().count(line)

    def read_when_all_wait(path):
        count = log_line("built")
        while log.read_text().count("waits") < 3:
            time.sleep(0.01)
        if first_dies and count == 1:
            os._exit(1)
        return read(path)

    def log_and_acquire(lock):
        log_line("waits")
        return acquire(lock)

    source.read_coco_file, cache.filelock.FileLock.acquire = read_when_all_wait, log_and_acquire
    barrier.wait(60)
    try:
        dataset = open_existing(folder)
        log_line(f"opened {len(dataset)} {dataset.annotations.entry is not None}")
    except DataError as error:
        log_line(str(error))


def open_in_three_processes(folder: Path, first_dies: bool = False) -> list[str]:
    """Return the log of three processes that open the data set at the same time."""
    context, log = multiprocessing.get_context("fork"), folder / "log"
    barrier = context.Barrier(3)
    processes = [context.Process(target=_open_in_a_process, args=(folder, barrier, log, first_dies)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return sorted(line for line in log.read_text().splitlines() if line != "waits")


def test_only_one_of_several_processes_builds_the_entry(tmp_path):
    """Law: the others wait, and all map the same entry."""
    write_tiny(tmp_path)
    assert open_in_three_processes(tmp_path) == ["built", *["opened 4 True"] * 3]


def test_waiting_processes_raise_the_error_of_the_builder(tmp_path):
    """Law: the processes that waited raise the same error, without reading the file themselves."""
    content = tiny_content()
    content["annotations"][1]["bbox"] = [40, 8, -5, 30]
    write_tiny(tmp_path, content)
    built, *errors = open_in_three_processes(tmp_path)
    assert built == "built" and len(errors) == 3 and len(set(errors)) == 1
    assert errors[0].startswith("negative-box: ") and "ann_id=2" in errors[0]
    content["annotations"][1]["bbox"] = [40, 8, 5, 30]
    assert len(open_tiny(tmp_path, content)) == 4


def test_another_process_builds_if_the_builder_dies(tmp_path, temporary_cache):
    """Law: the next process builds the entry, and what the killed one wrote is not taken for an entry."""
    write_tiny(tmp_path)
    assert open_in_three_processes(tmp_path, first_dies=True) == ["built", "built", *["opened 4 True"] * 2]
    assert len(cache_entries(temporary_cache)) == 1


def test_cached_arrays_are_memory_mapped_and_read_only(tmp_path):
    """By hand: an array is a view of a mapped file, and cannot be written to."""
    boxes = open_tiny(tmp_path).annotations.boxes
    while isinstance(boxes.base, np.ndarray):
        assert not boxes.flags.writeable
        boxes = boxes.base
    assert type(boxes.base).__name__ == "mmap"


def test_report_state_restores_and_sums():
    """Law: a new report to which another's state is added equals that report; when the state is added again, the counts
    are summed."""
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


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    """By hand: VERTEBRA_CACHE comes before XDG_CACHE_HOME, and that before the home folder."""
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("VERTEBRA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_folder() == Path("/xdg/vertebra")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "vertebra"


def test_image_folder_files_are_checked_once(tmp_path, monkeypatch, temporary_cache):
    """By hand: image files are checked when the folder is first opened, and again if one of them changed; a damaged
    file is reported each time."""
    monkeypatch.setattr(file_checks, "MIN_CACHED_FILES", 0)
    root = write_folder(tmp_path / "photos")
    (root / "cat" / "cut.png").write_bytes((root / "cat" / "b.png").read_bytes()[:50])
    config = ImageFolderConfig(root=root)
    files = record_calls(monkeypatch, image_folder, "check_image")
    first, second = (build_dataset(config, "skip") for _ in range(2))
    assert len(files) == 7 and len(cache_entries(temporary_cache)) == 1
    assert first.report.as_json() == second.report.as_json() and first.image_ids == second.image_ids
    assert second.report.as_json()["skipped"]["images"]["damaged-image"]["ids"] == ["cat/cut.png"]
    os.utime(root / "dog" / "a.png", ns=(1, 1))
    assert build_dataset(config, "skip").report.as_json() == first.report.as_json() and len(files) == 14
    shutil.copy(root / "dog" / "a.png", root / "dog" / "new.png")
    assert len(build_dataset(config, "skip")) == len(first) + 1
