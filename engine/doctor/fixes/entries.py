"""Corrections of the entries of a COCO document: forms of values, classes, and ids."""

from collections import Counter, defaultdict

from ....formats.checks import as_id, is_text
from ....formats.coco_corrections import correct_entry
from ..checks.classes import is_background_name
from .document import Document, Entry


def correct_forms(document: Document) -> None:
    """Correct values that are written in another form, and remove entries that are no objects."""
    for section in ("images", "annotations", "categories"):
        entries = getattr(document, section)
        document.changes += [
            {"split": document.split, "change": "no-entry", "before": repr(entry)[:80]}
            for entry in entries
            if not isinstance(entry, dict)
        ]
        setattr(document, section, [entry for entry in entries if isinstance(entry, dict)])
        for entry in getattr(document, section):
            for case in dict.fromkeys(correct_entry(entry)):
                document.log(case, entry)


def correct_classes(document: Document) -> None:
    """Strip class names, merge classes of one name, and remove a root category or background without objects."""
    document.keep(
        "categories", lambda entry: isinstance(as_id(entry.get("id")), int) and is_text(entry.get("name")),
        "bad-category",
    )  # fmt: skip
    for category in document.categories:
        document.set("padded-class-name", category, "name", category["name"].strip() or f"class {category['id']}")
    first_of: dict[str, Entry] = {}
    kept, new_ids = [], {}
    for category in document.categories:
        first = first_of.setdefault(category["name"], category)
        if first is category:
            kept.append(category)
        else:
            new_ids[category["id"]] = first["id"]
            document.log("duplicate-category", category, category["name"], {"id": first["id"]})
    document.categories = kept
    for annotation in document.annotations:
        if as_id(category_id := annotation.get("category_id")) in new_ids:
            document.set("duplicate-category", annotation, "category_id", new_ids[category_id])
    _remove_roots(document)


def _remove_roots(document: Document) -> None:
    """Remove the first category if it has no object and all others name it as their supercategory, or if it is the
    background."""
    used = Counter(as_id(annotation.get("category_id")) for annotation in document.annotations)
    rest = document.categories[1:]
    roots = {
        category["id"]
        for number, category in enumerate(document.categories)
        if not used[category["id"]]
        and (
            is_background_name(category["name"])
            or (number == 0 and rest and all(other.get("supercategory") == category["name"] for other in rest))
        )
    }
    document.keep("categories", lambda entry: entry["id"] not in roots, "class-without-objects")


def correct_ids(document: Document) -> None:
    """Remove annotations of unknown images or classes, and give every annotation an id of its own."""
    images = {image["id"] for image in document.images}
    categories = {category["id"] for category in document.categories}
    for field, known, case in (("image_id", images, "unknown-image"), ("category_id", categories, "unknown-category")):
        document.keep("annotations", lambda entry, field=field, known=known: as_id(entry.get(field)) in known, case)
    seen: set[int | str] = set()
    given = [as_id(annotation.get("id")) for annotation in document.annotations]
    largest = max((value for value in given if isinstance(value, int)), default=0)
    for annotation, annotation_id in zip(document.annotations, given, strict=True):
        if annotation_id is None or annotation_id in seen:
            largest += 1
            case = "assigned-id" if annotation_id is None else "renumbered-id"
            document.set(case, annotation, "id", largest)
        seen.add(annotation["id"])
        if annotation.get("iscrowd", 0) not in (0, 1) or not isinstance(annotation.get("iscrowd", 0), int):
            document.set("bad-crowd", annotation, "iscrowd", 0)


def remove_repeated_images(document: Document) -> None:
    """Remove images listed twice under one id, and copies of a file whose objects are the same or are missing."""
    first_of: dict[int | str, Entry] = {}
    kept = []
    for image in document.images:
        if first_of.setdefault(image["id"], image) is image:
            kept.append(image)
        else:
            document.log("duplicate-image-id", image, image["file_name"])
    document.images = kept
    objects = defaultdict(list)
    for annotation in document.annotations:
        objects[annotation["image_id"]].append((annotation["category_id"], tuple(annotation.get("bbox") or ())))
    originals: dict[bytes, int | str] = {}
    copies = set()
    for image in document.images:
        digest = document.digests[image["id"]]
        original = originals.setdefault(digest, image["id"])
        found = sorted(objects[image["id"]])
        if original != image["id"] and (not found or found == sorted(objects[original])):
            copies.add(image["id"])
    _remove_images(document, copies, "repeated-image")


def remove_leaked_images(document: Document, other: Document) -> None:
    """Remove the images of training data whose file is also in the validation data ``other``."""
    evaluated = set(other.digests.values())
    leaked = {image["id"] for image in document.images if document.digests[image["id"]] in evaluated}
    if len(leaked) < len(document.images):
        _remove_images(document, leaked, "leaked-image")


def _remove_images(document: Document, image_ids: set[int | str], case: str) -> None:
    document.keep("annotations", lambda entry: entry["image_id"] not in image_ids, case)
    document.keep("images", lambda entry: entry["id"] not in image_ids, case)
