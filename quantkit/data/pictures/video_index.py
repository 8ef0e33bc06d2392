"""The frames of a video file: how many it has, and when each of them is shown, from its packets alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from quantkit.data.data_file import DataFile
from quantkit.errors import BackendError, DataError, QuantkitError, first_line
from quantkit.extras import install_command


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """times: when each frame is shown, in units of the stream, in order; None if the file does not tell them all."""

    frames: int
    times: tuple[int, ...] | None


def open_container(file: DataFile) -> tuple[Any, Any]:
    """Open a video, and return its container and its open file. BackendError without PyAV, DataError."""
    try:
        import av
    except ImportError:
        raise BackendError(
            f"{file.name} needs the library PyAV", remedy=f"install it: {install_command('video')}"
        ) from None
    stream = file.open(1 << 20)
    try:
        container = av.open(stream, mode="r")
        if not container.streams.video:
            raise DataError(f"{file.place} has no video", remedy="give a video file, or leave it out")
    except QuantkitError:
        stream.close()
        raise
    except Exception as error:  # of FFmpeg, by its number
        stream.close()
        raise unreadable_video(file, error) from None
    return container, stream


def unreadable_video(file: DataFile, error: Exception) -> DataError:
    """Return the error for a video that cannot be read."""
    return DataError(
        f"{file.place} is no video that can be read: {first_line(error)}", remedy="write it again, or leave it out"
    )


@functools.lru_cache(maxsize=1024)
def index_video(file: DataFile) -> VideoIndex:
    """Return the frames of a video without decoding it; one that has not changed is not read again. DataError."""
    container, stream = open_container(file)
    try:
        times = [packet.pts for packet in container.demux(container.streams.video[0]) if packet.size]
    except QuantkitError:
        raise
    except Exception as error:
        raise unreadable_video(file, error) from None
    finally:
        container.close()
        stream.close()
    known = sorted(time for time in times if time is not None)
    complete = len(known) == len(times) == len(set(known))
    return VideoIndex(len(times), tuple(known) if complete else None)
