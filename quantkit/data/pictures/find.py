"""From the value of --data to a store of pictures: what kind of files lie there, and which of them are wanted.

    suffix                                   pictures
    .jpg .png … under a URL, or in a list    the files themselves
    .tar                                     WebDataset's samples, or an archive of a folder
    .parquet .arrow .feather                 rows with the bytes of an image
    .mp4 .mov .mkv .avi .webm …              every n-th frame

A new kind is a class, what opens it in STORES, and its suffixes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.data.data_file import DataFile, file_at
from quantkit.data.image_folder import files_below
from quantkit.data.image_layouts import find_image_set
from quantkit.data.image_set import Split
from quantkit.data.pictures.image_objects import ImageObjects
from quantkit.data.pictures.listing import FileList, is_pattern, list_files
from quantkit.data.pictures.splits import members_of
from quantkit.data.pictures.store import PictureStore
from quantkit.data.text_rows import text_lines
from quantkit.errors import DataError
from quantkit.image_file import SUFFIXES
from quantkit.locations import is_url, read_object, refuse_other_scheme, url_name
from quantkit.paths import exists, is_folder, real_path

IMAGE, TAR, TABLE, VIDEO, ARRAY = "images", ".tar archives", "tables", "videos", "arrays"
KINDS: Mapping[str, frozenset[str]] = {
    IMAGE: SUFFIXES,
    TAR: frozenset({".tar"}),
    TABLE: frozenset({".parquet", ".pq", ".arrow", ".feather", ".ipc"}),
    VIDEO: frozenset({".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg"}),
    ARRAY: frozenset({".npy", ".npz"}),
}
"""Kind of files → their suffixes. Images come first: in a folder with images, other files are not samples."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
LIST = ".txt"


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """Files of one kind. source: for messages. part: of the data set, that they are; "" if it is not divided."""

    source: str
    kind: str
    files: tuple[DataFile, ...]
    part: str = ""
    notes: tuple[str, ...] = ()


def open_archives(files: Sequence[DataFile], source: str, _: int) -> PictureStore:
    """Return the pictures in .tar archives. What reads a kind of files is imported where such files are."""
    from quantkit.data.pictures.tar_samples import TarSamples

    return TarSamples(files, source)


def open_tables(files: Sequence[DataFile], source: str, _: int) -> PictureStore:
    """Return the pictures in the rows of tables."""
    from quantkit.data.pictures.table_rows import TableRows

    return TableRows(files, source)


def open_videos(files: Sequence[DataFile], source: str, every: int) -> PictureStore:
    """Return every n-th frame of videos."""
    from quantkit.data.pictures.video_frames import VideoFrames

    return VideoFrames(files, source, every)


STORES: Mapping[str, Callable[[Sequence[DataFile], str, int], PictureStore]] = {
    IMAGE: lambda files, source, _: ImageObjects(files, source),
    TAR: open_archives,
    TABLE: open_tables,
    VIDEO: open_videos,
}
"""Kind of files → what opens them. The number is the distance between frames."""


def kind_of(name: str) -> str | None:
    """Return the kind of a file by its suffix; None for another kind."""
    suffix = os.path.splitext(name)[1].lower()
    return next((kind for kind, suffixes in KINDS.items() if suffix in suffixes), None)


def holds_containers(path: Path) -> bool:
    """Return True for a container of pictures, a list with URLs, or a folder of containers without images."""
    if not is_folder(path):
        packed = path.name.lower().endswith(COMPRESSED)
        return packed or kind_of(path.name) in (TAR, TABLE, VIDEO) or (path.suffix == LIST and lists_urls(path))
    return any(kind_of(name) in (TAR, TABLE, VIDEO) for name in files_below(path))


def find_pictures(source: str, split: Split) -> FoundFiles:
    """Return the files with pictures that a path, a URL or a pattern names, of one split. DataError."""
    listed = list_files(source)
    name = shown_name(source)
    if len(listed.files) == 1 and listed.files[0].suffix == LIST:
        return FoundFiles(name, IMAGE, listed_places(listed.files[0]))
    kind, files = of_one_kind(listed)
    chosen, part = members_of([file.name for file in files], split, folders_only=kind == IMAGE)
    kept = tuple(files[index] for index in chosen)
    notes: tuple[str, ...] = ()
    if part:
        notes = (f"{part} of {name}: {len(kept):,} of {len(files):,} {kind}",)
    if kind == IMAGE and (others := len(listed.files) - len(files)):
        notes += (f"{others} other files in the folder are not images",)
    return FoundFiles(f"{name} ({part})" if part else name, kind, kept, part, notes)


def of_one_kind(listed: FileList) -> tuple[str, list[DataFile]]:
    """Return the files of the only kind that there is, or the images. DataError."""
    groups: dict[str, list[DataFile]] = {}
    for file in listed.files:
        kind = kind_of(file.name)
        if kind is not None:
            groups.setdefault(kind, []).append(file)
    if IMAGE in groups:
        return IMAGE, groups[IMAGE]
    if len(groups) == 1:
        return next(iter(groups.items()))
    if groups:
        *most, last = [f"{kind} ({len(files)})" for kind, files in groups.items()]
        raise DataError(
            f"{listed.source} holds {', '.join(most)} and {last}", remedy="point --data at files of one kind"
        )
    if packed := next((file for file in listed.files if file.name.lower().endswith(COMPRESSED)), None):
        raise DataError(
            f"{packed.place} is compressed, so that nothing in it can be found without unpacking all of it",
            remedy="store it as a plain .tar, without compression: gunzip unpacks it",
        )
    suffixes = ", ".join(suffix for kind, found in KINDS.items() if kind != IMAGE for suffix in sorted(found))
    raise DataError(
        f"no samples in {listed.source}", remedy=f"images end in {', '.join(sorted(SUFFIXES))}; also: {suffixes}"
    )


def open_pictures(found: FoundFiles, step: int) -> PictureStore:
    """Open files as a store of pictures. step: the distance between frames of a video. DataError, BackendError."""
    return STORES[found.kind](found.files, found.source, step)


def listed_places(file: DataFile) -> tuple[DataFile, ...]:
    """Return the images of a list of paths and URLs, one a line. DataError names the line."""
    text = read_object(file.place) if file.is_remote else file.read(0, file.size or 0)
    try:
        lines = text_lines(text.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError(f"{file.place} is not text in UTF-8", remedy="write one path or URL a line") from None
    base = file.place.rpartition("/")[0] if file.is_remote else str(Path(file.place).parent)
    found: dict[str, DataFile] = {}
    for number, line in enumerate((line.strip() for line in lines), 1):
        if not line:
            continue
        place = line if is_url(line) else f"{base}/{line}" if file.is_remote else str(Path(base, line))
        if kind_of(url_name(place)) != IMAGE or not (is_url(place) or exists(place)):
            raise DataError(
                f"{file.place}, line {number}: {line[:200]} is not the path or URL of an image",
                remedy="one a line; paths from the folder of the list",
            )
        if place in found:
            raise DataError(f"{file.place}, line {number}: {line[:200]} is there twice", remedy="name every image once")
        found[place] = DataFile(line, place, None) if is_url(place) else file_at(place, line)
    if not found:
        raise DataError(f"{file.place} lists no images", remedy="write one path or URL a line")
    return tuple(found.values())


def lists_urls(path: Path) -> bool:
    """Return True for a list whose first line is a URL. DataError."""
    file = file_at(path, path.name)
    return is_url(file.read(0, min(file.size or 0, 4096)).decode("utf-8", "replace").lstrip("\ufeff \r\n"))


def data_name(source: Any) -> str:
    """Return the name of data for records: of a file or folder the last part of its real path, of a URL its last part,
    of other values their type."""
    if not isinstance(source, (str, os.PathLike)):
        return type(source).__name__
    text = os.fspath(source)
    return shown_name(text) if is_remote(text) else real_path(text).name


def is_remote(source: Any) -> bool:
    """Return True for a URL, or a pattern of names: not a path of this machine that can be looked at.

    DataError for a URL of a scheme that cannot be reached.
    """
    if isinstance(source, str) and not exists(source):
        refuse_other_scheme(source)
    return isinstance(source, (str, os.PathLike)) and (
        is_url(os.fspath(source)) or (is_pattern(os.fspath(source)) and not exists(source))
    )


def holds_images(source: str) -> bool:
    """Return True if a URL or a pattern stands for pictures, and not for arrays. DataError."""
    return (kind_of(url_name(source)) or find_pictures(source, Split.TRAIN).kind) != ARRAY


def is_divided(data: Any) -> bool:
    """Return True if data are a data set whose images to calibrate with are others than those to evaluate on.

    DataError where one of the two is damaged.
    """
    if not isinstance(data, (str, os.PathLike)):
        return False
    if is_remote(data):
        return is_divided_by_names(os.fspath(data))
    if not exists(data):
        return False
    found = [find_image_set(Path(data), split) for split in Split]
    if not any(images is not None and images.folder.names for images in found) and holds_containers(Path(data)):
        return is_divided_by_names(os.fspath(data))
    return all(images is not None and images.split is not None for images in found)


def is_divided_by_names(source: str) -> bool:
    """Return True if the names of files tell which of them are for training, and which for evaluation. DataError."""
    return all(find_pictures(source, split).part for split in Split)


def shown_name(source: str) -> str:
    """Return a short name of a source for messages and records: its last part."""
    return url_name(source) or source if is_url(source) else os.path.basename(os.path.abspath(source))
