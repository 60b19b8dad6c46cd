"""As much of the hub as ``from_pretrained`` and ``load_dataset`` ask for, on loopback, over plain files.

A repository is a folder; its files are served at one commit. What is served: a repository's description and file
list, a revision's tree, the paths asked about, and files with their etag, size and commit.
"""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by kind ("models" or "datasets") and id, and the requests that came for them."""

    def __init__(self) -> None:
        self.folders: dict[tuple[str, str], Path] = {}
        self.requests: list[str] = []
        self.url = ""

    def find(self, kind, name):
        return self.folders.get((kind, name))


def describe(folder, name):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "_id": "0",
        "id": name,
        "modelId": name,
        "sha": COMMIT,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "siblings": [{"rfilename": path.relative_to(folder).as_posix()} for path in files],
    }


def entry(folder, path):
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
    return {"type": "file", "oid": etag(path), "size": path.stat().st_size, "path": name}


def etag(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub that ``handler_for`` binds to it."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Say nothing on the console."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        split = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {split.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in split.path.split("/") if part]
        if parts[:1] == ["api"]:
            self.describe(parts[1:], parse_qs(split.query), body)
        else:
            self.serve(parts)

    def describe(self, parts, query, body):
        """api/models/OWNER/NAME[/revision/R | /tree/R/PATH | /paths-info/R]"""
        kind, name, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        folder = self.hub.find(kind, name)
        if folder is None or rest[:1] not in ([], ["revision"], ["tree"], ["paths-info"]):
            return self.refuse("RepoNotFound" if folder is None else "EntryNotFound")
        if rest[:1] == ["tree"]:
            place = folder.joinpath(*rest[2:])
            if not place.is_dir():
                return self.refuse("EntryNotFound")
            paths = place.rglob("*") if query.get("recursive", ["false"])[0].lower() == "true" else place.iterdir()
            return self.reply(json.dumps([entry(folder, path) for path in sorted(paths)]).encode())
        if rest[:1] == ["paths-info"]:
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            there = [folder / path for path in asked if (folder / path).exists()]
            return self.reply(json.dumps([entry(folder, path) for path in there]).encode())
        return self.reply(json.dumps(describe(folder, name)).encode())

    def serve(self, parts):
        """[datasets/]OWNER/NAME/resolve/REVISION/PATH"""
        kind = "datasets" if parts[:1] == ["datasets"] else "models"
        parts = parts[1:] if kind == "datasets" else parts
        folder = self.hub.find(kind, "/".join(parts[:2]))
        if folder is None:
            return self.refuse("RepoNotFound")
        path = folder.joinpath(*parts[4:])
        if not path.is_file():
            return self.refuse("EntryNotFound")
        return self.reply(path.read_bytes(), {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT})

    def refuse(self, code):
        return self.reply(b"{}", {"X-Error-Code": code}, status=404)

    def reply(self, content, headers=None, status=200):
        start, end = 0, len(content)
        asked = self.headers.get("Range")
        if asked and status == 200:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else end
            status = 206
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[start:end])


@contextmanager
def running_hub():
    """Serve a hub on loopback while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
