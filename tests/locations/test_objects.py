"""Objects under URLs: listed, read, written whole; what may pass is tried again, the rest is one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantkit.errors import BackendError, DataError, OutputError
from quantkit.locations import (
    find_object,
    is_url,
    join_url,
    list_objects,
    object_exists,
    open_object,
    read_object,
    refuse_other_scheme,
    url_name,
    write_object,
)
from tests.support.object_stores import WebStore, s3_store

pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("default")  # of the libraries of stores
CONTENT = bytes(range(256)) * 4


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.locations.objects.PAUSES", (0.0, 0.0))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_store(patch) as url:
        yield url


@pytest.fixture(params=["memory", "file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL below which nothing lies yet, in every store that can be written."""
    if request.param == "s3":
        return join_url(request.getfixturevalue("bucket"), tmp_path.name)
    return f"file://{tmp_path}/new" if request.param == "file" else f"memory://{tmp_path.name}"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebStore]:
    pytest.importorskip("aiohttp")
    store = WebStore(tmp_path)
    yield store
    store.close()


def test_what_is_written_is_listed_and_read(folder: str) -> None:
    assert list_objects(folder) == ()
    for name in ("b/2.bin", "a.bin", "b/1.bin"):
        assert not object_exists(join_url(folder, name))
        write_object(join_url(folder, name), CONTENT)
    listed = list_objects(folder)
    assert [entry.url.partition(folder.split("://")[1].rpartition("/")[2])[2] for entry in listed] == [
        "/a.bin", "/b/1.bin", "/b/2.bin",
    ]  # fmt: skip
    assert [entry.size for entry in listed] == [len(CONTENT)] * 3
    assert [entry.url for entry in list_objects(join_url(folder, "a.bin"))] == [listed[0].url]
    assert all(read_object(entry.url) == CONTENT for entry in listed)
    assert read_object(listed[0].url, 3, 260) == CONTENT[3:260]
    with open_object(listed[0].url, block=100) as file:
        file.seek(-5, 2)
        assert file.read() == CONTENT[-5:]
    found = find_object(join_url(folder, "a.bin"))
    assert found is not None
    assert found.version
    write_object(join_url(folder, "a.bin"), b"other")
    replaced = find_object(join_url(folder, "a.bin"))
    assert replaced is not None
    assert replaced.version != found.version
    assert find_object(join_url(folder, "b")) is None


def test_a_missing_object_is_named(folder: str) -> None:
    url = join_url(folder, "none.bin")
    for read in (read_object, open_object):
        with pytest.raises(DataError) as caught:
            read(url)
        assert caught.value.problem == f"cannot read {url}: there is no such object"


def test_a_missing_bucket_is_no_empty_folder(bucket: str) -> None:
    with pytest.raises(DataError, match="there is no bucket elsewhere"):
        list_objects("s3://elsewhere/run")
    with pytest.raises(OutputError, match=r"cannot write s3://elsewhere/run/a: .*bucket"):
        write_object("s3://elsewhere/run/a", CONTENT)


def test_missing_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    with pytest.raises(DataError, match="access is refused") as caught:
        read_object(f"{bucket}/a.bin")
    assert "AWS_ACCESS_KEY_ID" in caught.value.remedy
    s3fs.S3FileSystem.clear_instance_cache()


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(OutputError):
        write_object(f"file://{tmp_path}/a.bin", CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_web_folder(web: WebStore, caplog: pytest.LogCaptureFixture) -> None:
    (web.root / "deep").mkdir()
    (web.root / "deep" / "a.bin").write_bytes(CONTENT)
    (web.root / "b.bin").write_bytes(CONTENT[::-1])
    assert [entry.url for entry in list_objects(web.url)] == [f"{web.url}/b.bin", f"{web.url}/deep/a.bin"]
    assert read_object(f"{web.url}/deep/a.bin", 5, 50) == CONTENT[5:50]
    assert not object_exists(f"{web.url}/none")
    with pytest.raises(OutputError, match="nothing can be written to a web server"):
        write_object(f"{web.url}/c.bin", CONTENT)
    with pytest.raises(DataError, match="access is refused"):
        read_object(f"{web.url}/secret")
    with pytest.raises(DataError, match="access is refused"):
        list_objects(f"{web.url}/secret")
    assert not caplog.messages


@pytest.mark.parametrize("trouble", ["tired", "cut"])
def test_what_passes_is_tried_again_and_told(web: WebStore, trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    (web.root / "a.bin").write_bytes(CONTENT)
    setattr(web, trouble, 2)
    assert read_object(f"{web.url}/a.bin") == CONTENT
    assert len(caplog.messages) == 2
    assert "trying again (2 of 2)" in caplog.messages[1]
    setattr(web, trouble, 3)
    with pytest.raises(DataError, match=r"tried 3 times") as caught:
        read_object(f"{web.url}/a.bin")
    assert caught.value.headline.startswith(f"cannot read {web.url}/a.bin: ")


def test_a_server_that_is_gone(web: WebStore) -> None:
    url, _ = f"{web.url}/a.bin", web.close()
    with pytest.raises(DataError, match=r"cannot read http.*tried 3 times"):
        read_object(url)
    with pytest.raises(DataError, match=r"cannot list http.*tried 3 times"):
        list_objects(url)
    with pytest.raises(DataError, match=r"cannot read http.*tried 3 times"):
        object_exists(url)


def test_a_server_without_ranges(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "a.bin").write_bytes(CONTENT)
    store = WebStore(tmp_path, ranges=False)
    try:
        assert read_object(f"{store.url}/a.bin") == CONTENT
        with pytest.raises(DataError, match="sends the whole object"):
            read_object(f"{store.url}/a.bin", 3, 10)
    finally:
        store.close()


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec  # noqa: F401 (its registry remembers what it has loaded)

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="s3:// needs the library s3fs") as caught:
        list_objects("s3://bucket/x")
    assert caught.value.remedy == "install it: pip install 's3fs>=2024.6'"


def test_what_a_url_is() -> None:
    assert is_url("s3://bucket/key")
    assert is_url("https://host/a.tar")
    assert not any(is_url(text) for text in ("folder", "c:/data", "ftp://host/x", "module:callable", Path("s3://b"), 3))
    assert join_url("s3://b/", "x/y") == "s3://b/x/y"
    assert url_name("https://host/deep/a.tar?token=3") == "a.tar"


def test_schemes_in_any_case_and_none_but_ours(tmp_path: Path) -> None:
    write_object(f"FILE://{tmp_path}/a.bin", CONTENT)
    assert is_url(f"File://{tmp_path}")
    assert read_object(f"file://{tmp_path}/a.bin") == read_object(f"File://{tmp_path}/a.bin") == CONTENT
    for value in (None, 3, "C://x", "a/b", "module:callable", "S3://bucket/x", tmp_path):
        refuse_other_scheme(value)
    for url in ("ftp://host/x", "AZ://container/x"):
        with pytest.raises(DataError, match=r"nothing can be read or written at \w+://\n  → use .* s3://, .* file://"):
            refuse_other_scheme(url)
