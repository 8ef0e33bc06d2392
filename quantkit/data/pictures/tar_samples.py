"""Images in `.tar` archives, such as WebDataset's shards: read where they lie, archive after archive."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from quantkit.data.data_file import DataFile
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.pictures.extents import ExtentReader
from quantkit.data.pictures.image_objects import known_stamps
from quantkit.data.pictures.joined_files import JoinedFiles
from quantkit.data.pictures.name_classes import labels_in_names
from quantkit.data.pictures.tar_index import TarSample, index_tar
from quantkit.errors import DataError, UnreadableError
from quantkit.image_file import LARGEST_FILE
from quantkit.regular_file import FileStamp

WITHOUT_LABELS = "its samples have neither .cls nor .json members with a class, nor class folders in their names"


class TarSamples:
    """The images of archives, in the order of the archives and of the images in them."""

    def __init__(self, files: Sequence[DataFile], source: str) -> None:
        found = [index_tar(file) for file in files]
        self._files, self._source = files, source
        self._samples = [index.samples for index in found]
        self._joined = JoinedFiles.of(map(len, self._samples))
        self.count = self._joined.count
        unended = [file.name for file, index in zip(files, found, strict=True) if not index.ended]
        self.notes: tuple[str, ...] = ()
        if unended:
            more = f" and {len(unended) - 1} more" if len(unended) > 1 else ""
            self.notes = (f"{unended[0]}{more} ends without the mark of its end, and may have been cut off",)
        self._reader: tuple[dict[int, int], ExtentReader] | None = None

    def plan(self, indices: Sequence[int]) -> None:
        """Prepare reading these pictures, in this order."""
        if any(file.is_remote for file in self._files):
            extents = [(self._joined.place(i)[0], self._at(i).start, self._at(i).stop) for i in indices]
            numbers = {index: number for number, index in enumerate(indices)}
            self._reader = numbers, ExtentReader(self._files, extents)

    def name(self, index: int) -> str:
        """Return archive and member: `train-000.tar/n01/0001.jpg`."""
        return f"{self._files[self._joined.place(index)[0]].name}/{self._at(index).name}"

    def picture(self, index: int) -> bytes:
        """Return the bytes of a member. UnreadableError where it is too large for an image; DataError."""
        sample, file = self._at(index), self._files[self._joined.place(index)[0]]
        if sample.stop - sample.start > LARGEST_FILE:
            raise UnreadableError(f"larger than {LARGEST_FILE / 2**20:g} MiB")
        if self._reader is not None and index in self._reader[0]:
            return self._reader[1].read(self._reader[0][index])
        return file.read(sample.start, sample.stop)

    def version(self, index: int) -> bytes | None:
        """Return the sha256 of the version of the archive and the place in it; None if its store names no version."""
        sample, file = self._at(index), self._files[self._joined.place(index)[0]]
        return file.identify(f"{sample.start}-{sample.stop}")

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:
        """Return the stamps of the archives, the first of them with a digest of the choice."""
        return chosen_stamps(self._files, indices)

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels | None:  # noqa: ARG002
        """Return the classes beside the images, else the folders in their names. DataError where some have none."""
        every = [sample for samples in self._samples for sample in samples]
        labelled = sum(sample.label is not None for sample in every)
        if not labelled:
            found = labels_in_names([sample.name for sample in every], indices, self._source)
            return found or DeclaredLabels(self._source, missing=WITHOUT_LABELS)
        if bare := [index for index in indices if every[index].label is None]:
            raise DataError(
                f"{self.name(bare[0])} has no label in the archive; {labelled:,} of {len(every):,} samples have one",
                remedy="add a .cls member for every image, or give --labels FILE",
            )
        given = [sample.label for sample in every if sample.label is not None]
        names = set(map(str, given)) if any(isinstance(label, str) for label in given) else set[str]()
        values = [str(every[i].label) if names else every[i].label for i in indices]
        return DeclaredLabels(f"the members of {self._source}", values, every=tuple(sorted(names)))

    def close(self) -> None:
        """Forget what was read in advance."""
        if self._reader is not None:
            self._reader[1].close()

    def _at(self, index: int) -> TarSample:
        file, row = self._joined.place(index)
        return self._samples[file][row]


def chosen_stamps(files: Sequence[DataFile], indices: Sequence[int]) -> tuple[FileStamp, ...]:
    """Return the stamps of files that hold many samples each, under names with a digest of the chosen ones."""
    chosen = hashlib.sha256(repr(list(indices)).encode()).hexdigest()[:16]
    return tuple(
        FileStamp(f"{stamp.name} samples {chosen}", stamp.size, stamp.modified_ns, stamp.inode, stamp.changed_ns)
        for stamp in known_stamps(files)
    )
