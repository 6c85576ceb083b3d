"""Real servers of files, in threads of the tests' process."""

from __future__ import annotations

import contextlib
import functools
import http.server
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the module that it is built on
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer


class Server(NamedTuple):
    """A running server.

    Attributes:
        url: of its root.
        root: the directory that it shows.
        seen: what it was asked for, one line each.
    """

    url: str
    root: Path
    seen: list[str]


@contextlib.contextmanager
def http_server(root: Path, failures: int = 0) -> Iterator[Server]:
    """Serve a directory by HTTP; the first `failures` requests are answered with 503."""
    seen: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            seen.append(f"GET {self.path}")
            if len(seen) <= failures:
                self.send_error(503)
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", root, seen)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def ftp_server(root: Path) -> Iterator[Server]:
    """Serve a directory by FTP, to a user `me` with the password `secret`, who may write."""
    seen: list[str] = []
    authorizer = DummyAuthorizer()
    authorizer.add_user("me", "secret", str(root), perm="elradfmwMT")
    logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)

    class Handler(FTPHandler):  # type: ignore[misc]  # it has no types
        def on_file_sent(self, file: str) -> None:
            seen.append(f"RETR {file}")

        def on_file_received(self, file: str) -> None:
            seen.append(f"STOR {file}")

    Handler.authorizer = authorizer
    server = FTPServer(("127.0.0.1", 0), Handler)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)
        server.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Server(f"ftp://me:secret@127.0.0.1:{server.address[1]}", root, seen)
    finally:
        stop.set()
        thread.join()
