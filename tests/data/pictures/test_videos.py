"""Videos: every n-th frame, whichever way to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.data_file import file_at
from quantkit.data.pictures import video_frames
from quantkit.data.pictures.video_index import index_video
from quantkit.errors import DataError, UsageError
from quantkit.preprocess import Preprocess
from quantkit.values import ModelInput
from tests.support.picture_forms import write_video

av = pytest.importorskip("av")
INPUTS = (ModelInput("image", "float32", ("N", 3, 16, 24)),)
FRAMES = 40
CODECS = {"mp4": "mpeg4", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}


def opened(path: Any, **options: Any) -> Feed:
    chosen = DataOptions(**{"whole": True, "threads": 3, "batch_size": 7, **options})
    return open_data(path, INPUTS, Preprocess(resize="exact"), chosen)[0]


def brightness(feed: Feed) -> list[float]:
    return [float(image.mean()) for portion in feed.portions() for image in portion.batch["image"]]


@pytest.fixture(scope="module", params=sorted(CODECS))
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / f"clip.{request.param}"
    try:
        return write_video(path, FRAMES, codec=CODECS[request.param])
    except av.FFmpegError as error:
        pytest.skip(f"this FFmpeg does not write {request.param}: {error}")


def test_every_frame_in_order(video: Path) -> None:
    found = brightness(opened(video))
    assert len(found) == FRAMES
    assert np.allclose(found, [20 + 200 * n // (FRAMES - 1) for n in range(FRAMES)], atol=4)


def test_any_choice_is_the_same_frames(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = brightness(opened(video))
    for options in (
        {"frame_step": 7},
        {"limit": 5},
        {"limit": 9, "shuffle": True, "seed": 4},
        {"frame_step": 3, "limit": 4},
    ):
        for far in (1, 64):
            monkeypatch.setattr(video_frames, "FAR", far)
            feed = opened(video, **options)
            numbers = [int(name.partition("[frame ")[2][:-1]) for name in feed.names or ()]
            assert brightness(feed) == [every[n] for n in numbers]
    assert (opened(video, frame_step=7).names or ())[:3] == [f"{video.name}[frame {n}]" for n in (0, 7, 14)]


def test_a_stream_without_times_is_counted(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = brightness(opened(video))
    found = index_video(file_at(video, video.name))
    without = type(found)(found.frames, None)
    monkeypatch.setattr(video_frames, "index_video", lambda _: without)
    assert brightness(opened(video, frame_step=5)) == every[::5]


def test_the_identity_is_that_of_file_and_frame(video: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other name.mp4"
    copy.write_bytes(video.read_bytes())
    assert opened(video).identity() == opened(copy).identity()
    assert opened(video).identity() != opened(video, frame_step=2).identity()
    assert opened(video).stamps() != opened(video, frame_step=2).stamps()


def test_folders_of_videos_are_classes(tmp_path: Path) -> None:
    for name in ("walk/1.mp4", "walk/2.mp4", "run/1.mp4"):
        write_video(tmp_path / name, 6)
    feed = opened(tmp_path, frame_step=3)
    assert feed.names == [f"{n}[frame {k}]" for n in ("run/1.mp4", "walk/1.mp4", "walk/2.mp4") for k in (0, 3)]
    declared = feed.declared(2)
    assert declared is not None
    assert list(declared.values) == ["run"] * 2 + ["walk"] * 4


def test_damaged_videos(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", FRAMES).read_bytes()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4 is no video that can be read"):
        opened(tmp_path / "text.mp4")
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.mkv is damaged: (at frame \d+|it ends at)"):
        opened(tmp_path / "cut.mkv", skip_corrupt=True)
    hurt = bytearray(whole)
    hurt[len(whole) // 2 : len(whole) // 2 + 200] = np.random.default_rng(1).bytes(200)
    (tmp_path / "hurt.mkv").write_bytes(hurt)
    with pytest.raises(DataError, match=r"hurt\.mkv is damaged: at frame \d+ \(\d+\.\d s\): "):
        opened(tmp_path / "hurt.mkv", skip_corrupt=True)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_video_with_lost_packets_is_refused_wherever_they_were(tmp_path: Path, suffix: str) -> None:
    """Frames behind the gap would go by the numbers of others, and nobody would notice."""
    whole = write_video(tmp_path / f"whole{suffix}", FRAMES).read_bytes()
    assert len(opened(tmp_path / f"whole{suffix}").names or ()) == FRAMES
    lost = len(whole) // 6
    for number, part in enumerate((0.65, 0.7, 0.75)):  # behind the header
        at = int(len(whole) * part)
        (tmp_path / f"{number}{suffix}").write_bytes(whole[:at] + bytes(lost) + whole[at + lost :])
        (tmp_path / f"{number}short{suffix}").write_bytes(whole[:at] + whole[at + lost :])
        for name in (f"{number}{suffix}", f"{number}short{suffix}"):
            with pytest.raises(DataError, match=r"is damaged: (at|it should have|it ends) "):
                opened(tmp_path / name)


def test_a_step_between_frames_is_for_videos(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4, 4), np.float32))
    for data in (tmp_path, tmp_path / "x.npy", [{"image": np.zeros((1, 3, 4, 4), np.float32)}]):
        with pytest.raises(UsageError, match="frame_step=2 has no effect: the data are no videos"):
            open_data(data, INPUTS, Preprocess(), DataOptions(frame_step=2))


def test_damaged_frames_are_no_samples(tmp_path: Path) -> None:
    """FFmpeg would conceal them, with other pixels in every pass."""
    noise = np.random.default_rng(0)
    with av.open(str(tmp_path / "noise.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 64, 3), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = bytearray((tmp_path / "noise.avi").read_bytes())
    with av.open(str(tmp_path / "noise.avi")) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][FRAMES // 2]
        assert packet.pos is not None
        start, stop = packet.pos + 200, packet.pos + packet.size - 200
    content[start:stop] = noise.bytes(stop - start)
    (tmp_path / "hurt.avi").write_bytes(content)
    with pytest.raises(DataError, match="samples cannot be read"):
        brightness(opened(tmp_path / "hurt.avi"))
    feed = opened(tmp_path / "hurt.avi", skip_corrupt=True)
    found = brightness(feed)
    assert 0 < len(found) < FRAMES
    assert found == brightness(feed)
