"""A model hub in small: files over HTTP, with ranges, and a cable that can be cut."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Hub:
    """Serves `files` by path. The first answers end after `cut_after` bytes each, as many as it lists."""

    def __init__(self, files: dict[str, bytes], cut_after: tuple[int, ...] = ()) -> None:
        self.files = files
        self.ranges: list[str | None] = []
        cuts = list(cut_after)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = hub.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                wanted = self.headers.get("Range")
                hub.ranges.append(wanted)
                begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                if begin >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(content) - begin))
                self.end_headers()
                self.wfile.write(content[begin : begin + cuts.pop(0)] if cuts else content[begin:])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
