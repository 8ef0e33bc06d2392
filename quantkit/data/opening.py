"""Opening data: from the value of `--data` to a feed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from quantkit.data.array_files import ArrayPlace
from quantkit.data.arrays import ArraySamples, row_count
from quantkit.data.batches import axes_of
from quantkit.data.feed import Feed
from quantkit.data.image_layouts import find_image_set
from quantkit.data.image_list import ImageList
from quantkit.data.image_set import ImageSet, Split, no_images
from quantkit.data.pictures.find import ARRAY, FoundFiles, find_pictures, holds_containers, is_remote, open_pictures
from quantkit.data.pictures.folder_images import FolderImages
from quantkit.data.pictures.store import PictureSamples, PictureStore
from quantkit.data.pictures.video_frames import VideoFrames
from quantkit.data.sample_feed import SampleFeed
from quantkit.data.spec_limits import apply_spec
from quantkit.data.splitting import HoldoutPart
from quantkit.data.streams import BatchFolderFeed, StreamFeed, load_callable
from quantkit.errors import DataError, UsageError
from quantkit.image_file import SUFFIXES
from quantkit.paths import exists, is_folder
from quantkit.preprocess import Preprocess
from quantkit.regular_file import file_fault, refuse_irregular
from quantkit.values import ModelInput, Selection, check_number

DEFAULT_LIMIT = 512
DEFAULT_BATCH = 32
MOST_SAMPLES = 100_000_000
"""Samples whose names and digests fit into memory."""
MOST_THREADS = 1024
"""Threads that decode images; no machine has more cores."""


def default_threads() -> int:
    """Return the number of threads that decode unless another is asked for: one per core, at most 8."""
    return min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Options of reading data. None stands for a default that depends on the source and the model."""

    limit: int | None = None
    """Maximum number of samples; by default 512 for images, arrays and streams, and all of a folder of batches."""
    shuffle: bool = False
    seed: int = 0
    batch_size: int | None = None
    """Samples per batch; by default the model's if it is fixed, and otherwise 32."""
    threads: int = field(default_factory=default_threads)
    """Threads that decode."""
    skip_corrupt: bool = False
    frame_step: int = 1
    """Every so many frames of a video are one sample."""
    whole: bool = False
    """Read all samples if there is no limit, and the split to evaluate on: for evaluation, not for calibration."""
    part: HoldoutPart | None = None
    """One of two parts of the samples. Ready-made batches belong to one of them as a whole."""

    def __post_init__(self) -> None:
        check_number("limit", self.limit, 1)
        check_number("batch_size", self.batch_size, 1)
        check_number("frame_step", self.frame_step, 1)
        check_number("threads", self.threads, 1, MOST_THREADS)
        check_number("seed", self.seed, 0, (1 << 64) - 1)


class DataFields(TypedDict, total=False):
    """The keywords of verbs that say how samples are read: fields of `DataOptions`."""

    limit: int | None
    shuffle: bool
    seed: int
    batch_size: int | None
    threads: int
    skip_corrupt: bool
    frame_step: int


def open_data(
    source: Any, inputs: Sequence[ModelInput], spec: Preprocess, options: DataOptions
) -> tuple[Feed, Preprocess | None]:
    """Return a feed for the network's `inputs`, and the preprocessing as applied (None if arrays pass unchanged).

    `source` is a path (images in a layout of `image_layouts`; `.npy`, `.npz`, folder of `.npz` batches),
    `module:callable`, an `ImageList`, or an iterable of batches; a callable is called for every pass.
    DataError, PreprocessError, UsageError.
    """
    refuse_no_inputs(inputs)
    if isinstance(source, (str, os.PathLike)):
        if is_remote(source):
            return open_found(find_pictures(os.fspath(source), wanted_split(options)), inputs, spec, options)
        path = Path(source)
        if not exists(path) and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*:\w+", str(source)):
            return open_stream(load_callable(str(source)), inputs, spec, options), None
        return open_path(path, inputs, spec, options)
    if isinstance(source, ImageList):
        return open_image_list(source, inputs, spec, options)
    refuse_whole_array(source, inputs)
    if callable(source) or hasattr(source, "__iter__"):
        return open_stream(make_repeatable(source), inputs, spec, options), None
    raise UsageError(
        f"data is of type {type(source).__name__}",
        remedy="pass a path, an iterable of batches, or a callable",
    )


def refuse_whole_array(source: Any, inputs: Sequence[ModelInput]) -> None:
    """Raise UsageError for one array of all samples, whose rows would be taken for batches."""
    shape = getattr(source, "shape", None)
    if isinstance(shape, tuple) and len(inputs) == 1 and len(shape) <= len(inputs[0].shape):
        raise UsageError(
            f"data is one array, {list(shape)}, and not batches",
            remedy="save it with numpy.save and pass the path of the .npy file, or pass a list of batches: [array]",
        )


def refuse_no_inputs(inputs: Sequence[ModelInput]) -> None:
    """Raise DataError for a network that takes no data."""
    if not inputs:
        raise DataError("the network has no inputs, so no data can be fed to it", remedy="give a network with inputs")


def open_path(
    path: Path, inputs: Sequence[ModelInput], spec: Preprocess, options: DataOptions
) -> tuple[Feed, Preprocess | None]:
    """Open a file or a folder."""
    if not exists(path):
        raise DataError(
            f"{path} does not exist",
            remedy="give a folder of images, a data.yaml, an .npz or .npy file, a URL, or module:callable",
        )
    if not is_folder(path):
        refuse_endless(path)
        if path.suffix in (".npy", ".npz"):
            return open_array(path, inputs, spec, options)
        if holds_containers(path):
            return open_found(find_pictures(str(path), wanted_split(options)), inputs, spec, options)
    images = find_image_set(path, wanted_split(options))
    if images is None:
        raise DataError(
            f"{path} is neither an image, nor a data set's data.yaml, .json or .txt, nor a .npy or .npz file",
            remedy=f"images end in {', '.join(sorted(SUFFIXES))}",
        )
    batches = sorted(p for p in path.glob("*.npz") if not p.name.startswith(".")) if is_folder(path) else []
    if images.folder.names and batches:
        raise DataError(
            f"{path} holds both images ({len(images.folder.names)}) and .npz batches ({len(batches)})",
            remedy="point --data at a folder with only one of them",
        )
    if batches:
        return open_batches(batches, inputs, spec, options), None
    if not images.folder.names:
        if is_folder(path) and holds_containers(path):
            return open_found(find_pictures(str(path), wanted_split(options)), inputs, spec, options)
        raise no_images(path)
    return open_images(images, inputs, spec, options)


def refuse_endless(path: Path) -> None:
    """Raise DataError where a path names a pipe, a socket or a device."""
    try:
        refuse_irregular(path)
    except OSError as error:
        raise DataError(f"{path}: {file_fault(error)}", remedy="give a file or a folder") from None


def refuse_several_inputs(inputs: Sequence[ModelInput]) -> None:
    """Raise DataError where images cannot feed a network, because it has several inputs."""
    if len(inputs) != 1:
        raise DataError(
            f"the network has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), images feed one",
            remedy="save batches as .npz files with an array for every input, and point --data at their folder",
        )


def open_image_list(
    images: ImageList, inputs: Sequence[ModelInput], spec: Preprocess, options: DataOptions
) -> tuple[Feed, Preprocess]:
    """Open images that the caller holds as a list, in its order."""
    found = images.image_set()
    if found is not None:
        return open_images(found, inputs, spec, options)
    return open_store(images.store(), inputs, spec, options)


def open_images(
    images: ImageSet, inputs: Sequence[ModelInput], spec: Preprocess, options: DataOptions
) -> tuple[Feed, Preprocess]:
    """Open images for a network with one input."""
    folder = images.folder
    after = (f"{folder.others} other files in the folder are not images",) if folder.others else ()
    store = FolderImages(folder.root, folder.names)
    return open_store(store, inputs, spec, options, images=images, notes=(images.notes, after))


def open_found(
    found: FoundFiles, inputs: Sequence[ModelInput], spec: Preprocess, options: DataOptions
) -> tuple[Feed, Preprocess | None]:
    """Open files that were found under a URL, by a pattern, or as containers of pictures."""
    if found.kind == ARRAY:
        if len(found.files) == 1:
            return open_array(found.files[0], inputs, spec, options)
        if wrong := next((file for file in found.files if file.suffix != ".npz"), None):
            raise DataError(f"{wrong.place} is one of several arrays", remedy="give one .npy file, or .npz batches")
        return open_batches(found.files, inputs, spec, options), None
    store = open_pictures(found, options.frame_step)
    return open_store(store, inputs, spec, options, notes=(found.notes, store.notes))


def open_store(
    store: PictureStore,
    inputs: Sequence[ModelInput],
    spec: Preprocess,
    options: DataOptions,
    *,
    images: ImageSet | None = None,
    notes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
) -> tuple[Feed, Preprocess]:
    """Open pictures for a network with one input. notes: before and after the one on the choice of samples."""
    refuse_several_inputs(inputs)
    refuse_frame_step(options, is_video=isinstance(store, VideoFrames))
    applied = apply_spec(spec, inputs[0])
    indices, size, chosen = choose_samples(store.count, inputs, options)
    feed = SampleFeed(
        "images", PictureSamples(store, indices, inputs[0].name, applied),
        batch_size=size, threads=options.threads, skip_corrupt=options.skip_corrupt,
        full_batches=inputs[0].fixed_batch is not None, notes=(*notes[0], *chosen, *notes[1]), images=images,
    )  # fmt: skip
    return feed, applied


def refuse_frame_step(options: DataOptions, *, is_video: bool = False) -> None:
    """Raise UsageError where frames are to be left out, and the samples are no frames of videos."""
    if options.frame_step > 1 and not is_video:
        raise UsageError(
            f"--frame-step {options.frame_step} has no effect: the data are no videos",
            remedy="leave it out; in quantkit.toml, frame_step is for each of the two data sets by itself",
        )


def wanted_split(options: DataOptions) -> Split:
    """Return the part of a divided data set that is read."""
    return Split.VAL if options.whole else Split.TRAIN


def open_array(
    path: ArrayPlace, inputs: Sequence[ModelInput], spec: Preprocess, options: DataOptions
) -> tuple[Feed, Preprocess | None]:
    """Open rows of arrays; with a spec other than `raw` they are images."""
    refuse_frame_step(options)
    applied = None
    if spec != Preprocess():
        if len(inputs) != 1:
            raise DataError(
                f"the network has {len(inputs)} inputs, but a preprocessing spec prepares one",
                remedy="prepare the arrays beforehand and use --preprocess raw",
            )
        applied = apply_spec(spec, inputs[0])
    indices, size, notes = choose_samples(row_count(path, inputs), inputs, options)
    samples = ArraySamples(path, indices, inputs, applied)
    feed = SampleFeed(
        "array", samples,
        batch_size=size, threads=1, skip_corrupt=options.skip_corrupt,
        full_batches=any(i.fixed_batch is not None for i in inputs), notes=notes, axes=axes_of(inputs),
    )  # fmt: skip
    return feed, applied


def open_batches(
    files: Sequence[ArrayPlace], inputs: Sequence[ModelInput], spec: Preprocess, options: DataOptions
) -> Feed:
    """Open files that each hold one batch; a limit, if given, counts files."""
    refuse_batch_options(spec, options, "a folder of .npz batches", "its files")
    own = list(range(len(files))) if options.part is None else options.part.of(len(files))
    chosen = [own[i] for i in Selection(options.limit, options.shuffle, options.seed).of(len(own))]
    notes = () if len(chosen) == len(own) else (f"{len(chosen)} of {len(own)} batches (--limit counts files here)",)
    return BatchFolderFeed([files[i] for i in chosen], inputs, notes)


def open_stream(
    source: Callable[[], Iterable[Any]],
    inputs: Sequence[ModelInput],
    spec: Preprocess,
    options: DataOptions,
) -> Feed:
    """Open a Python iterable; only its first samples are read, because its length is unknown."""
    refuse_batch_options(spec, options, "a stream", "it")
    fixed = next((i.fixed_batch for i in inputs if i.fixed_batch is not None), 1)
    if options.shuffle:
        raise UsageError("a stream cannot be shuffled", remedy="shuffle in the iterable itself")
    limit = options.limit if options.limit or options.whole else max(DEFAULT_LIMIT, fixed)
    notes = (f"at most the first {limit} samples (--limit)",) if limit else ()
    return StreamFeed(source, inputs, limit, notes, options.part)


def refuse_batch_options(spec: Preprocess, options: DataOptions, what: str, who: str) -> None:
    """Raise UsageError for options that would preprocess or regroup ready-made batches."""
    refuse_frame_step(options)
    if spec != Preprocess():
        raise UsageError(
            f"{what} is fed as it is",
            remedy="prepare the arrays beforehand and use --preprocess raw",
        )
    if options.skip_corrupt:
        raise UsageError(f"--skip-corrupt applies to images and rows, not to {what}", remedy="leave it out")
    if options.batch_size is not None:
        raise UsageError(f"the batches of {what} are determined by {who}", remedy="leave out --batch-size")


def choose_samples(
    count: int, inputs: Sequence[ModelInput], options: DataOptions
) -> tuple[list[int], int, tuple[str, ...]]:
    """Return the chosen samples, the batch size, and notes. UsageError where they do not fit a fixed batch."""
    own = range(count) if options.part is None else options.part.of(count)
    count = len(own)
    if count == 0:
        raise DataError("the data set is empty", remedy="give at least one sample")
    fixed = next((i.fixed_batch for i in inputs if i.fixed_batch is not None), None)
    if fixed is not None and options.batch_size not in (None, fixed):
        raise UsageError(
            f"the model has the fixed batch size {fixed}, but --batch-size is {options.batch_size}",
            remedy="leave out --batch-size, or export the model with a dynamic batch",
        )
    limit = min(options.limit or (count if options.whole else DEFAULT_LIMIT), count)
    if limit > MOST_SAMPLES:
        raise DataError(f"{limit:,} samples are more than fit into memory", remedy="choose some of them with --limit")
    size = fixed or options.batch_size or min(DEFAULT_BATCH, limit)
    notes: tuple[str, ...] = ()
    if fixed is not None and limit % fixed:
        if (options.limit is not None and options.limit < count) or limit < fixed:
            fill = f"--limit {limit - limit % fixed}" if limit > fixed else f"at least {fixed} samples"
            raise UsageError(
                f"{limit} samples do not fill batches of {fixed}, the model's fixed size",
                remedy=f"use {fill}, or export the model with a dynamic batch",
            )
        notes += (f"{limit - limit % fixed} of {count} samples, to fill batches of {fixed}, the model's fixed size",)
        limit -= limit % fixed
    elif options.limit is None and limit < count:
        notes += (f"{limit} of {count} samples, spread evenly over the sorted list (--limit)",)
    return [own[i] for i in Selection(limit, options.shuffle, options.seed).of(count)], size, notes


def whole_batches(limit: int, inputs: Sequence[ModelInput]) -> int:
    """Return the largest number of samples up to `limit` that fills a model's fixed batches; at least one batch."""
    fixed = next((i.fixed_batch for i in inputs if i.fixed_batch is not None), 1)
    return max(fixed, limit - limit % fixed)


def make_repeatable(source: Any) -> Callable[[], Iterable[Any]]:
    """Return a callable that starts the iterable again; it raises DataError for a second pass over an iterator."""
    if callable(source) and not hasattr(source, "__iter__"):
        result: Callable[[], Iterable[Any]] = source
        return result
    if not isinstance(source, Iterator):
        return lambda: source
    passes: list[None] = []

    def once() -> Iterable[Any]:
        if passes:
            raise DataError(
                "the iterator is exhausted, but another pass over the data is needed",
                remedy="pass a list, a DataLoader, or a function that returns a new iterator",
            )
        passes.append(None)
        return source

    return once
