"""Images in a column beside one of labels: rows without a label are left out or refused, the rest are looked at."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from signstep.data.batches import DataSource
from signstep.data.images import Picture, read_images, survey, treatment
from signstep.data.targets import Targets, is_missing
from signstep.errors import LoadError
from signstep.messages import Arg


@dataclass(frozen=True)
class PictureColumn:
    """Where the images and labels of a table lie.

    Attributes:
        name: what the record calls the data.
        image: name of the column of images.
        target: name of the column of labels.
        values: labels, row by row; None where a row has none.
        stored: the bytes of the image of a row.
        place: what a row is called.
        files: what the data is read from, by name.
    """

    name: str
    image: str
    target: str
    values: Iterable[Any]
    stored: Callable[[int], BytesIO]
    place: Callable[[int], str]
    files: Mapping[str, Path]

    def source(
        self,
        order: Sequence[str] | None,
        *,
        resize: tuple[int, int] | None,
        skip_bad: bool,
        limit: int | None,
        batch_size: int,
        max_pixels: int,
        ignore: int | None,
    ) -> DataSource:
        """The labelled images, with classes numbered in an order where there is one.

        Raises:
            LoadError: no row has a label, or one has none and ``skip_bad`` is not asked for.
        """
        targets, labelled, rows, unlabelled = Targets(self.target, ignore), [], 0, ""
        for row, value in enumerate(self.values):
            rows += 1
            if not is_missing(value):
                targets.add(value, partial(self.place, row))
                labelled.append(row)
                continue
            unlabelled = unlabelled or f"{self.place(row)}, column {self.target!r} holds no label"
            if not skip_bad:
                raise LoadError(unlabelled, remedy=("remove such rows, or skip them (", Arg("skip_bad", True), ")"))
        if not labelled:
            raise LoadError(f"{unlabelled}, nor does any other row", remedy="pass images with labels")
        labels = targets.labels(None if order is None else tuple(order))
        pictures = [Picture(self.place(row), partial(self.stored, row)) for row in labelled]
        looked = survey(pictures, resize=resize, limit=limit, skip_bad=skip_bad, max_pixels=max_pixels)
        chosen = [pictures[position] for position in looked.usable]
        without = rows - len(labelled)
        lost = (f"{without} rows skipped because they have no label; the first: {unlabelled}",) if without else ()
        return DataSource(
            name=self.name,
            labels=labels.numbers[list(looked.usable)],
            shape=looked.shape,
            read=lambda sizes: read_images(chosen, looked.shape, resize, sizes, max_pixels),
            files=self.files,
            batch_size=batch_size,
            total=len(labelled) - looked.skipped,
            bounds=(0.0, 1.0),
            classes=labels.classes,
            notes=(
                f"images from column {self.image!r}, labels from {self.target!r}",
                *labels.notes,
                *looked.notes,
                *lost,
            ),
            treatment=treatment(looked.shape, resize),
            skipped=looked.skipped + without,
        )


def image_bytes(cell: Any, place: str, remedy: str) -> BytesIO:
    """The bytes of an image from a cell ``{bytes, path}``.

    Raises:
        LoadError: the cell is empty or points elsewhere; ``remedy`` says how to have them in it.
    """
    if not cell or not cell.get("bytes"):
        has = f"points to {cell['path']} instead of holding it" if cell and cell.get("path") else "is missing"
        raise LoadError(
            f"the image {place} {has}", remedy=(f"{remedy}, or skip such images (", Arg("skip_bad", True), ")")
        )
    return BytesIO(cell["bytes"])


def class_name(names: Sequence[str] | None, value: Any) -> Any:
    """The name of a class number; none for the -1 that stands for a label unknown; a value without names as it is."""
    if names is None or value is None:
        return value
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
