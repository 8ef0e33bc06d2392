"""Stores of objects on this machine: Amazon S3's protocol by moto, and a web server that can misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BUCKET = "pictures"
TIRED = 503


@contextmanager
def s3_store(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve S3 with one empty bucket until the end of the block; return the bucket's URL."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    import boto3

    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    try:
        yield f"s3://{BUCKET}"
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


class WebStore:
    """A web server over a folder. It serves parts of files, and fails where it is told to.

    tired: so many of the next requests of a GET are answered with 503; cut: so many bodies end in the middle.
    """

    def __init__(self, root: Path, *, ranges: bool = True) -> None:
        self.root, self.ranges = root, ranges
        self.tired = self.cut = 0
        self.asked: list[str] = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                store.answer(self, body=False)

            def do_GET(self) -> None:
                store.answer(self, body=True)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        """Answer one request."""
        path = self.root / request.path.lstrip("/")
        if body:
            self.asked.append(request.path)
            if self.tired:
                self.tired -= 1
                return self.empty(request, TIRED)
        if request.path.startswith("/secret"):
            return self.empty(request, 401)
        if path.is_dir():
            links = "".join(f'<a href="{p.name}{"/" * p.is_dir()}">.</a>' for p in sorted(path.iterdir()))
            return self.send(request, links.encode(), body, "text/html")
        if not path.is_file():
            return self.empty(request, 404)
        return self.send(request, path.read_bytes(), body, "application/octet-stream")

    def send(self, request: BaseHTTPRequestHandler, content: bytes, body: bool, kind: str) -> None:
        """Send a body, or the part of it that is asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        total = len(content)
        if self.ranges and wanted:
            start, stop = int(wanted[1]), min(int(wanted[2] or total - 1) + 1, total)
            content = content[start:stop]
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{total}")
        else:
            request.send_response(200)
        if self.ranges:
            request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body and self.cut and kind != "text/html":
            self.cut -= 1
            content = content[: len(content) // 2]
            request.close_connection = True
        if body:
            request.wfile.write(content)

    @staticmethod
    def empty(request: BaseHTTPRequestHandler, status: int) -> None:
        """Answer with a status alone."""
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
