"""A model hub in small: listings and files over HTTP, with ranges, redirects, tokens, and a cable that can be cut."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".onnx", ".ort", ".bin")  # kept apart from git, and known by their SHA-256
COMMIT = "c0ffee" + "0" * 34
_LISTING = re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Serves `repositories`: of each, its files by their paths; and `files` by their address.

    The first answers with a file end after `cut_after` bytes each, as many as it lists. With `elsewhere`, files are
    redirected to another hub that has them under the same address. With `token`, whoever does not show it gets 401;
    `gated` repositories are listed, and their files are 403 for everyone.
    """

    def __init__(
        self,
        files: dict[str, bytes] | None = None,
        cut_after: tuple[int, ...] = (),
        *,
        repositories: dict[str, dict[str, bytes]] | None = None,
        licence: str = "apache-2.0",
        elsewhere: "Hub | None" = None,
        token: str = "",
        gated: tuple[str, ...] = (),
        claims: dict[str, bytes] | None = None,
    ) -> None:
        self.files = files or {}
        self.repositories = repositories or {}
        self.ranges: list[str | None] = []
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.licence = licence
        self.elsewhere = elsewhere
        self.token = token
        self.gated = gated
        self.claims = claims or {}  # what the listing says that a file's bytes are, where it is wrong
        self.cuts = list(cut_after)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                hub.tokens.add(self.headers.get("Authorization"))
                path = unquote(urlsplit(self.path).path)
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self.send_error(401, "Invalid username or password.")
                elif path in hub.files:
                    self._send(hub.files[path])
                elif listing := _LISTING.fullmatch(path):
                    self._list(listing[1], listing[2])
                elif (file := _FILE.fullmatch(path)) and file[1] in hub.gated:
                    self.send_error(403, "Access to this model is restricted")
                elif hub.elsewhere is not None:
                    self.send_response(302)
                    self.send_header("Location", hub.elsewhere.url + self.path)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif file and file[2] in ("main", COMMIT) and (content := hub.content(file[1], file[3])) is not None:
                    self._send(content)
                else:
                    self.send_error(404)

            def _list(self, repository: str, revision: str) -> None:
                if repository not in hub.repositories or revision not in ("main", COMMIT):
                    self.send_error(404)
                    return
                said = json.dumps(hub.listing(repository)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def _send(self, content: bytes) -> None:
                wanted = self.headers.get("Range")
                hub.ranges.append(wanted)
                begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                if begin >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(content) - begin))
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.end_headers()
                self.wfile.write(content[begin : begin + hub.cuts.pop(0)] if hub.cuts else content[begin:])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def content(self, repository: str, path: str) -> bytes | None:
        return self.repositories.get(repository, {}).get(path)

    def listing(self, repository: str) -> dict[str, Any]:
        """As Hugging Face's hub lists a revision with `blobs=true`."""
        siblings = []
        for path, served in self.repositories[repository].items():
            content = self.claims.get(path, served)
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
            if path.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        return {
            "id": repository,
            "sha": COMMIT,
            "gated": "manual" if repository in self.gated else False,
            "tags": [f"license:{self.licence}"],
            "pipeline_tag": "text-generation",
            "cardData": {"license": self.licence},
            "siblings": siblings,
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
