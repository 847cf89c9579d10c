"""A server that speaks the protocol of the HuggingFace Hub, on loopback, for the tests.

Repositories live in memory: commits, branches and tags, private and gated repositories, tokens with rights. Failures are
injected: a transfer that breaks after some bytes, answers of 503, and a listing with hostile names. Every request is
logged. The endpoints and headers are those that huggingface_hub 0.36 to 2.4 asks for. Binary files are uploaded by the
large-file protocol, as on the hub; a commit can meet one made just before it, and its connection can break.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from scgraft.cards.reading import parse_card

# What the hub's .gitattributes sends through the large-file protocol.
LARGE = (".pt", ".h5ad", ".h5mu", ".safetensors")


@dataclass
class Repo:
    """Commits by hash (files by path), the order of commits, and what branches and tags point to."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        digest = hashlib.sha1(
            repr((sorted(files.items()), len(self.order))).encode(), usedforsecurity=False
        ).hexdigest()
        self.commits[digest] = dict(files)
        self.order.append(digest)
        self.refs[branch] = digest
        return digest

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


class HubServer:
    """The server as a context manager; `tokens` maps a token to the right ``"read"`` or ``"write"``."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens = {"reader": "read", "writer": "write"}
        self.log: list[str] = []
        self.down = False
        self.break_after: int | None = None
        self.breaks_left = 0
        self.hostile_names: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.drop_uploads = 0
        self.drop_commits = 0
        self.drop_answers = 0
        self.commit_before: tuple[str, dict[str, bytes]] | None = None
        self.client: object = None

    def __enter__(self) -> HubServer:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: object, **extra: str) -> dict[str, str]:
        """Variables that point the client here; it reads them when it is imported."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **extra,
        }


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(
            status, json.dumps({"error": message or code}).encode(), headers | {"X-Error-Message": message or code}
        )

    def _handle(self) -> None:
        self.hub.log.append(f"{self.command} {self.path}")
        self.payload = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.down:
            return self._error(503, "", "unavailable")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        self.right = self.hub.tokens.get(token, "")
        if token and not self.right:
            return self._error(401, "", "Invalid credentials in Authorization header")
        parts = [unquote(p) for p in urlsplit(self.path).path.strip("/").split("/")]
        if parts[0] == "lfs":
            return self._store(parts[1])
        if parts[1:2] and parts[1].endswith(".git") and parts[2:] == ["info", "lfs", "objects", "batch"]:
            return self._batch() if self._writable() else None
        if parts[:2] == ["api", "repos"]:
            return self._create()
        if parts[:2] == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if parts[:2] == ["api", "whoami-v2"]:
            return self._json({"name": "tester", "type": "user", "orgs": []})
        if parts == ["api", "models"]:
            return self._list(parse_qs(urlsplit(self.path).query))
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self._model("/".join(parts[2:4]), parts[4:])
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._error(404, "", "not found")

    def _list(self, asked: dict[str, list[str]]) -> None:
        """Public repositories whose card has the tags that are asked for; the library's name is a tag, as on the hub."""
        found = []
        for name, repo in self.hub.repos.items():
            commit = repo.refs["main"]
            header = parse_card(repo.commits[commit].get("README.md", b"").decode()).header
            tags = [str(tag) for tag in (header.get("library_name"), *(header.get("tags") or [])) if tag]
            if not repo.private and set(asked.get("filter", [])) <= set(tags):
                size = sum(map(len, repo.commits[commit].values()))
                entry = {"id": name, "modelId": name, "sha": commit, "gated": "auto" if repo.gated else False}
                found.append(entry | {"tags": tags, "usedStorage": size, "cardData": {}})
        self._json(found)

    def _repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.right):
            self._error(404 if self.right else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def _writable(self) -> bool:
        if self.right != "write":
            self._error(403 if self.right else 401, "", "You do not have write access")
        return self.right == "write"

    def _create(self) -> None:
        if not self._writable():
            return
        asked = json.loads(self.payload)
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        if name in self.hub.repos:
            return self._error(409, "", "You already created this model repo")
        self.hub.repos[name] = Repo(private=bool(asked.get("private")) or asked.get("visibility") == "private")
        self.hub.repos[name].commit({".gitattributes": b""})
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _model(self, name: str, rest: list[str]) -> None:
        repo = self._repo(name)
        if repo is None:
            return None
        verb, tail = (rest[0], rest[1:]) if rest else ("revision", ["main"])
        if verb == "preupload":
            files = json.loads(self.payload)["files"]
            return self._json({"files": [self._mode(repo, f["path"]) for f in files]}) if self._writable() else None
        if verb == "commit":
            return self._commit(name, repo, "/".join(tail)) if self._writable() else None
        if verb == "refs":
            branches = [{"name": n, "ref": n, "targetCommit": c} for n, c in repo.refs.items() if n not in repo.tags]
            tags = [{"name": n, "ref": n, "targetCommit": repo.refs[n]} for n in sorted(repo.tags)]
            return self._json({"branches": branches, "tags": tags, "converts": []})
        commit = repo.resolve("/".join(tail) or "main")
        if commit is None:
            return self._error(404, "RevisionNotFound", "Invalid rev id")
        files = repo.commits[commit]
        if verb == "tag":
            if self._writable():
                tag = json.loads(self.payload)["tag"]
                repo.refs[tag] = commit
                repo.tags.add(tag)
                self._json({})
            return None
        if verb == "tree":
            listed = files | dict.fromkeys(self.hub.hostile_names, b"evil")
            return self._json([{"type": "file", "path": p, "size": len(d), "oid": _oid(d)} for p, d in listed.items()])
        if verb == "revision":
            siblings = [{"rfilename": p} for p in (*files, *self.hub.hostile_names)]
            info = {"id": name, "modelId": name, "sha": commit, "private": repo.private, "gated": repo.gated}
            return self._json(info | {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0})
        return self._error(404, "", "not found")

    def _mode(self, repo: Repo, path: str) -> dict[str, object]:
        data = repo.commits[repo.refs["main"]].get(path)
        large = path.endswith(LARGE)
        known = {} if data is None else {"oid": hashlib.sha256(data).hexdigest() if large else _oid(data)}
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False} | known

    def _batch(self) -> None:
        objects = []
        for asked in json.loads(self.payload)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}
            objects.append(asked if asked["oid"] in self.hub.objects else asked | {"actions": upload})
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        if self.hub.drop_uploads:
            self.hub.drop_uploads -= 1
            return self._hang_up()
        if hashlib.sha256(self.payload).hexdigest() != oid:
            return self._error(400, "", "the object is not what its name says")
        self.hub.objects[oid] = self.payload
        return self._json({})

    def _commit(self, name: str, repo: Repo, branch: str) -> None:
        if self.hub.commit_before is not None and self.hub.commit_before[0] == name:
            repo.commit({**repo.commits[repo.refs[branch]], **self.hub.commit_before[1]}, branch)
            self.hub.commit_before = None
        if self.hub.drop_commits:
            self.hub.drop_commits -= 1
            return self._hang_up()
        files = dict(repo.commits[repo.refs[branch]])
        for line in self.payload.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                parent = value.get("parentCommit")
                if parent and parent != repo.refs[branch]:
                    return self._error(412, "", "A commit has happened since. Please refresh and try again.")
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        commit = repo.commit(files, branch)
        if self.hub.drop_answers:
            self.hub.drop_answers -= 1
            return self._hang_up()
        return self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return None
        if repo.gated and self.right != "write":
            return self._error(403 if self.right else 401, "GatedRepo", "Access to this model is restricted")
        commit = repo.resolve(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", "Invalid rev id")
        data = b"evil" if path in self.hub.hostile_names else repo.commits[commit].get(path)
        if data is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        start, status = 0, 200
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(data)}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted and self.command == "GET":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        limit = self.hub.break_after
        if self.command == "GET" and limit is not None and self.hub.breaks_left and len(body) > limit:
            self.hub.breaks_left -= 1
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[:limit])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(1)
            return None
        return self._send(status, body, headers)
