"""The frames of a video file: how many it has, and when each of them is shown, from its packets alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantkit.data.data_file import DataFile
from quantkit.errors import BackendError, DataError, QuantkitError, first_line
from quantkit.extras import install_command

DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
SECONDS_AMISS = 1.0
"""Seconds by which a video may be shorter than its container says."""


@dataclass(frozen=True, slots=True)
class PacketTimes:
    """A packet: its size in bytes, and when it is shown and decoded, in units of the stream; None: unknown."""

    size: int
    pts: int | None
    dts: int | None
    duration: int

    @property
    def end(self) -> int | None:
        """The time behind it."""
        return None if self.pts is None else self.pts + self.duration


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
        f"{file.place} is no video that can be read: {words_of(error)}", remedy="write it again, or leave it out"
    )


def words_of(error: Exception) -> str:
    """Return the problem in an exception of FFmpeg; its text may end with the log of another file."""
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


@functools.lru_cache(maxsize=1024)
def index_video(file: DataFile) -> VideoIndex:
    """Return the frames of a video without decoding it; one that has not changed is not read again.

    DataError, also where packets are damaged or missing, as far as the container tells: frames behind a gap would go by
    the numbers of others.
    """
    container, stream = open_container(file)
    try:
        packets = read_packets(file, container)
        refuse_missing_end(file, container, packets)
    except QuantkitError:
        raise
    except Exception as error:
        raise unreadable_video(file, error) from None
    finally:
        container.close()
        stream.close()
    times = [packet.pts for packet in packets if packet.size]
    known = sorted(time for time in times if time is not None)
    complete = len(known) == len(times) == len(set(known))
    return VideoIndex(len(times), tuple(known) if complete else None)


def read_packets(file: DataFile, container: Any) -> list[PacketTimes]:
    """Return the packets of a video in the order of the file. DataError where FFmpeg reports that it skips something.

    It goes on behind damage, and only its log says so.
    """
    import av.logging

    found: list[PacketTimes] = []
    video, level = container.streams.video[0], av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as log:
            for packet in container.demux(video):
                if packet.is_corrupt or log:
                    problem = log[0][2].strip() if log else "its packet is not whole"
                    raise damaged_video(file, f"at frame {len(found)}{moment(found, video)}: {problem}")
                if packet.size or packet.dts is not None:
                    found.append(PacketTimes(packet.size, packet.pts, packet.dts, packet.duration or 0))
    finally:
        av.logging.set_level(level)
    return found


def moment(found: Sequence[PacketTimes], video: Any) -> str:
    """Return the time behind the packets so far as text: ` (2.4 s)`; "" if it is not known."""
    ends = [packet.end for packet in found if packet.end is not None]
    return f" ({float(max(ends) * video.time_base):.1f} s)" if ends and video.time_base else ""


def refuse_missing_end(file: DataFile, container: Any, packets: Sequence[PacketTimes]) -> None:
    """Raise DataError where a container of a kind that can end early, or lose packets, says that there is more.

    AVI counts its frames. Matroska says how long a stream is; other programs round that, or leave it out.
    """
    video, kinds = container.streams.video[0], container.format.name.split(",")
    if "avi" in kinds:
        behind = max((packet.dts + 1 for packet in packets if packet.dts is not None), default=0)
        if max(len(packets), behind) < video.frames:
            raise damaged_video(file, f"it should have {video.frames:,} frames, and {len(packets):,} can be read")
    if "matroska" in kinds and video.time_base:
        stated = declared_seconds(container)
        end = float(max((packet.end for packet in packets if packet.end is not None), default=0) * video.time_base)
        if stated is not None and end < stated - SECONDS_AMISS:
            raise damaged_video(file, f"it ends at {end:.1f} s of {stated:.1f} s, behind frame {len(packets) - 1}")


def declared_seconds(container: Any) -> float | None:
    """Return how long the video of a Matroska file should be; None if it does not say."""
    found = DURATION.fullmatch(container.streams.video[0].metadata.get("DURATION", ""))
    if found is not None:
        return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    alone = len(container.streams) == 1 and container.duration is not None
    return container.duration / 1e6 if alone else None


def damaged_video(file: DataFile, what: str) -> DataError:
    """Return the error for a video of which a part is lost."""
    remedy = "copy it again, or keep what can be read: ffmpeg -i OLD -c copy NEW"
    return DataError(f"{file.place} is damaged: {what}", remedy=remedy)
