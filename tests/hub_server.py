"""As much of the hub as ``from_pretrained`` and ``load_dataset`` ask for, on loopback, over plain files.

A repository is a folder; its files are served at one commit. What is served: a repository's description and file
list, a revision's tree, the paths asked about, and files with their etag, size and commit. What is taken: new
repositories, and commits, of files inline or (weights) as large objects, from whoever has the token.
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN, READ_TOKEN = "hf_writes", "hf_reads"


class Hub:
    """Repositories by kind ("models" or "datasets") and id, and the requests that came for them."""

    def __init__(self) -> None:
        self.folders: dict[tuple[str, str], Path] = {}
        self.requests: list[str] = []
        self.url = ""
        self.uploads: Path | None = None  # where new repositories are made
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}  # large ones, by their SHA-256

    def find(self, kind, name):
        return self.folders.get((kind, name))


def describe(folder, name, private=False):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "_id": "0",
        "id": name,
        "modelId": name,
        "sha": COMMIT,
        "private": private,
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

    def do_PUT(self):
        self.answer()

    def answer(self):
        split = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {split.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in split.path.split("/") if part]
        if parts[:1] == ["api"] and parts[1] in ("whoami-v2", "repos", "validate-yaml"):
            self.account(parts[1], body)
        elif parts[-2:] == ["objects", "batch"]:
            self.offer_places(json.loads(body))
        elif parts[:1] == ["objects"]:
            self.hub.objects[parts[1]] = body
            self.reply(b"")
        elif parts[:1] == ["api"] and parts[4:5] in (["preupload"], ["commit"]):
            self.take("/".join(parts[2:4]), parts[4], body)
        elif parts[:1] == ["api"]:
            self.describe(parts[1:], parse_qs(split.query), body)
        else:
            self.serve(parts)

    @property
    def token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def validate(self, card):
        """What names no model of the hub is refused where a card should name one."""
        base_model = yaml.safe_load(card.split("---")[1]).get("base_model", "a/b")
        if base_model.count("/") == 1:
            return self.reply(b'{"errors": [], "warnings": []}')
        message = '"base_model" with value is not valid. Use a model id from the hub.'
        body = {"error": "Bad Request", "errors": [{"message": message}], "warnings": []}
        return self.reply(json.dumps(body).encode(), status=400)

    def account(self, asked, body):
        """api/whoami-v2, api/repos/create, api/validate-yaml"""
        if self.token not in (TOKEN, READ_TOKEN):
            return self.reply(b"{}", status=401)
        if asked == "whoami-v2":
            role = "write" if self.token == TOKEN else "read"
            return self.reply(json.dumps({"name": "me", "auth": {"accessToken": {"role": role}}}).encode())
        if asked == "validate-yaml":
            return self.validate(json.loads(body)["content"])
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if not name.startswith("me/"):
            return self.reply(b'{"error": "Forbidden"}', status=403)
        url = json.dumps({"url": f"{self.hub.url}/{name}"}).encode()
        if ("models", name) in self.hub.folders:
            return self.reply(url, status=409)
        self.hub.folders["models", name] = self.hub.uploads / name
        self.hub.folders["models", name].mkdir(parents=True)
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.add(name)
        return self.reply(url)

    def offer_places(self, asked):
        """OWNER/NAME.git/info/lfs/objects/batch"""
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        self.reply(json.dumps({"transfer": "basic", "objects": objects}).encode())

    def take(self, name, what, body):
        """api/models/OWNER/NAME/preupload/REVISION, api/models/OWNER/NAME/commit/REVISION"""
        if self.token != TOKEN:
            return self.reply(b"{}", status=403)
        if what == "preupload":
            files = [
                {**file, "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                | {"shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self.reply(json.dumps({"files": files}).encode())
        folder = self.hub.folders["models", name]
        for line in map(json.loads, body.splitlines()):
            entry = line["value"]
            if line["key"] == "file":
                (folder / entry["path"]).write_bytes(base64.b64decode(entry["content"]))
            elif line["key"] == "lfsFile":
                (folder / entry["path"]).write_bytes(self.hub.objects[entry["oid"]])
        answer = {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.url}/{name}/commit/{COMMIT}"}
        return self.reply(json.dumps(answer).encode())

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
        return self.reply(json.dumps(describe(folder, name, name in self.hub.private)).encode())

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
