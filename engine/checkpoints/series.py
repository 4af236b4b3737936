"""The checkpoints of one run, side by side in a folder: their names, which of them stay, and which is the best."""

import shutil
from pathlib import Path

from .atomic_folder import UNFINISHED, is_disk_full, write_errors

BEST = "best"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:07d}"


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one, and what a killed save left behind."""
    best = follow_best(folder / BEST).resolve()
    old = [path for path in checkpoint_paths(folder)[:-keep] if path.resolve() != best]
    for path in [*old, *folder.glob(f"{UNFINISHED}*")]:
        shutil.rmtree(path, ignore_errors=True)


def link_best(folder: Path, step: int) -> None:
    """Let ``folder/best`` lead to the checkpoint of a step: a link, or a text file with its name where there are no
    links (on Windows they need a right that few users have)."""
    link, temporary, name = folder / BEST, folder / f"{UNFINISHED}{BEST}", checkpoint_path(folder, step).name
    with write_errors(link):
        if link.is_dir() and not link.is_symlink():  # a copy of the run in which the link became what it led to
            shutil.rmtree(link)
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(name)
        except (OSError, NotImplementedError) as error:
            if is_disk_full(error):
                raise
            temporary.write_text(name + "\n")
        temporary.replace(link)


def follow_best(path: Path) -> Path:
    """Return the checkpoint that a text file called ``best`` names; any other path as it is."""
    return path.with_name(path.read_text().strip()) if path.name == BEST and path.is_file() else path


def rename_damaged_checkpoints(folder: Path, sound: Path) -> None:
    """Rename what is newer than the newest sound checkpoint: a resumed run writes those steps again."""
    for path in checkpoint_paths(folder):
        if path > sound:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
