"""Frames of video files as images: every n-th, decoded one after the other."""

from __future__ import annotations

import bisect
import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from quantkit.data.data_file import DataFile
from quantkit.data.declared_labels import DeclaredLabels
from quantkit.data.pictures.joined_files import JoinedFiles
from quantkit.data.pictures.name_classes import labels_in_names
from quantkit.data.pictures.tar_samples import chosen_stamps
from quantkit.data.pictures.video_index import index_video, open_container, words_of
from quantkit.errors import QuantkitError, UnreadableError
from quantkit.regular_file import CHUNK_BYTES, FileStamp

if TYPE_CHECKING:
    from PIL import Image

KEPT = 8
"""Frames in memory: threads ask for them almost in order."""
FAR = 64
"""Frames that are rather decoded than skipped by a jump to a key frame."""


class VideoFrames:
    """Every n-th frame of video files, in the order of the files. Their identity is that of the file and the number."""

    notes: tuple[str, ...] = ()

    def __init__(self, files: Sequence[DataFile], source: str, step: int) -> None:
        self._files, self._source, self._step = files, source, step
        self._index = [index_video(file) for file in files]
        self._joined = JoinedFiles.of(-(-found.frames // step) for found in self._index)
        self.count = self._joined.count
        self._reader: tuple[int, FrameReader] | None = None
        self._kept: OrderedDict[int, Image.Image] = OrderedDict()
        self._wanted: frozenset[int] = frozenset()
        self._lock = threading.Lock()

    def plan(self, indices: Sequence[int]) -> None:
        """Remember which frames will be asked for, to keep them when they are passed."""
        self._wanted = frozenset(indices)

    def name(self, index: int) -> str:
        """Return file and frame: `front.mp4[frame 120]`."""
        file, frame = self._place(index)
        return f"{self._files[file].name}[frame {frame}]"

    def picture(self, index: int) -> Image.Image:
        """Return a frame. UnreadableError where it cannot be decoded; DataError."""
        number, frame = self._place(index)
        first = index - frame // self._step
        with self._lock:
            found = self._kept.get(index)
            if found is None:
                if self._reader is None or self._reader[0] != number:
                    self._close()
                    self._reader = number, FrameReader(self._files[number], self._index[number].times)
                for passed, made in self._reader[1].until(frame):
                    at = first + passed // self._step
                    if passed == frame or (passed % self._step == 0 and at in self._wanted):
                        found = self._kept[at] = upright(made)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        assert found is not None, "bug in quantkit: a decoder stopped before the frame"
        return found

    def version(self, index: int) -> bytes:
        """Return the sha256 of the version of the file, or of its content, and the frame."""
        number, frame = self._place(index)
        file = self._files[number]
        known = file.identify(f"frame {frame}")
        return known or hashlib.sha256(f"{file_digest(file)}|frame {frame}".encode()).digest()

    def stamps(self, indices: Sequence[int]) -> tuple[FileStamp, ...]:
        """Return the stamps of the files, with a digest of the choice."""
        return chosen_stamps(self._files, [self._step, *indices])

    def labels(self, indices: Sequence[int], classes: int | None) -> DeclaredLabels | None:  # noqa: ARG002
        """Return the first folders in the names of the files as classes; None if there are none."""
        return labels_in_names([self.name(i) for i in range(self.count)], indices, self._source)

    def close(self) -> None:
        """Close the file until the next frame."""
        with self._lock:
            self._kept.clear()
            self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
        self._reader = None

    def _place(self, index: int) -> tuple[int, int]:
        file, number = self._joined.place(index)
        return file, number * self._step


class FrameReader:
    """A decoder of one video, which goes forward, and jumps to the last key frame before a frame that is far."""

    def __init__(self, file: DataFile, times: tuple[int, ...] | None) -> None:
        self._file, self._times = file, times
        self._container: Any = None
        self._stream: Any = None
        self._frames: Iterator[Any] = iter(())
        self._next = 0

    def until(self, number: int) -> Iterator[tuple[int, Any]]:
        """Yield decoded frames with their numbers, until the one of this number. UnreadableError where it cannot be
        decoded; DataError."""
        try:
            yield from self._until(number)
        except QuantkitError:
            raise
        except Exception:  # of FFmpeg, by its number, perhaps from an earlier frame that this one does not need
            self.close()
            yield from self._from_key_frame(number)

    def _from_key_frame(self, number: int) -> Iterator[tuple[int, Any]]:
        """Yield frames as `until`, from the key frame on, so that it does not depend on what was asked for before."""
        try:
            yield from self._until(number)
        except (QuantkitError, UnreadableError):
            self.close()
            raise
        except Exception as error:
            self.close()
            raise UnreadableError(words_of(error)) from None

    def _until(self, number: int) -> Iterator[tuple[int, Any]]:
        far = self._times is not None and number > self._next + FAR
        if self._container is None or number < self._next or far:
            self._begin(number)
        for frame in self._frames:
            position = self._next
            if self._times is not None and frame.pts is not None:
                position = bisect.bisect_left(self._times, frame.pts)
                if self._times[position : position + 1] != (frame.pts,):
                    raise UnreadableError("the video is damaged: it has a frame at a time that its packets do not name")
            self._next = position + 1
            if position > number:
                break
            if frame.is_corrupt:
                raise UnreadableError("the frame is damaged")
            yield position, frame
            if position == number:
                return
        raise UnreadableError("the video has no such frame")

    def _begin(self, number: int) -> None:
        """Open the file, if it is not open, and go to the last key frame before a frame, or to the beginning."""
        if self._container is None or self._times is None:
            self.close()
            self._container, self._stream = open_container(self._file)
            self._container.streams.video[0].thread_type = "AUTO"
            self._container.streams.video[0].codec_context.options = {"err_detect": "explode"}  # rather than invent
        video = self._container.streams.video[0]
        self._next = 0
        if self._times is not None:
            self._container.seek(self._times[number], stream=video, backward=True, any_frame=False)
        self._frames = self._container.decode(video)

    def close(self) -> None:
        """Close the file."""
        for opened in (self._container, self._stream):
            if opened is not None:
                opened.close()
        self._container = self._stream = None
        self._frames, self._next = iter(()), 0


def upright(frame: Any) -> Image.Image:
    """Return a frame as an image, turned as the file says: a phone that was held upright stores frames lying down."""
    image: Image.Image = frame.to_image()
    turn = getattr(frame, "rotation", 0) or 0
    return image.rotate(turn, expand=True) if turn else image


@functools.lru_cache(maxsize=1024)
def file_digest(file: DataFile) -> str:
    """Return the sha256 of a whole file; of one that has not changed it is remembered. DataError."""
    digest = hashlib.sha256()
    with file.opened(CHUNK_BYTES) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
