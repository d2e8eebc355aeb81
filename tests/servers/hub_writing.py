"""What a Hub is asked by whoever writes to it: a repository is made, files are uploaded, one commit names them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

if TYPE_CHECKING:
    from servers.hub import HubServer

WRITER = "Bearer hf_writer"


class Writing:
    """Requests that change something; each needs the token of somebody who may write."""

    hub: HubServer

    def do_POST(self) -> None:
        path, body = self._asked()
        if self.headers.get("Authorization") != WRITER:
            self._tell(401 if "Authorization" not in self.headers else 403, {"error": "no"})
        elif self.hub.failing:
            self._tell(self.hub.failing.pop(0), {"error": "as told"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        else:
            _, _, _, org, name, verb, revision = path.split("/", 6)
            getattr(self, f"_{verb}")(f"{org}/{name}", revision, body)

    def do_PUT(self) -> None:
        path, body = self._asked()
        name = path.lstrip("/")
        if hashlib.sha256(body).hexdigest() != name:
            self._tell(400, {"error": "other bytes"})
            return
        if self.hub.uploads_left is not None and self.hub.uploads_left == 0:
            self._tell(400, {"error": "as told"})
            return
        if self.hub.uploads_left is not None:
            self.hub.uploads_left -= 1
        self.hub.blobs[name] = body
        self._tell(200, {})

    def _asked(self) -> tuple[str, bytes]:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, "Authorization" in self.headers))
        return path, self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _tell(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _create(self, asked: dict[str, Any]) -> None:
        from servers.hub import Repository

        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self._tell(409, {"error": "it is there"})
            return
        is_private = asked.get("visibility") == "private" or asked.get("private") is True
        repository = self.hub.repositories[name] = Repository(
            is_private=is_private, token="hf_writer" if is_private else None
        )
        repository.commit({".gitattributes": b"*.safetensors filter=lfs"})
        self._tell(200, {"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _validate(self, content: str) -> None:
        fields = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
        faults = [{"message": '"license" must be text'}] if not isinstance(fields.get("license", ""), str) else []
        self._tell(400 if faults else 200, {"errors": faults, "warnings": []})

    def _preupload(self, _name: str, _revision: str, body: bytes) -> None:
        from servers.hub import LARGE_BYTES

        files = json.loads(body)["files"]
        modes = [("lfs" if file["size"] >= LARGE_BYTES else "regular", file["path"]) for file in files]
        told = [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None} for mode, path in modes]
        self._tell(200, {"files": told})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [dict(each) for each in asked["objects"]]
        for each in objects:
            if each["oid"] not in self.hub.blobs:
                each["actions"] = {"upload": {"href": f"{self.hub.storage}/{each['oid']}"}}
        self._tell(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, revision: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        header, *rest = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit") not in (None, repository.revisions[revision]):
            self._tell(412, {"error": "not its parent"})
            return
        files = dict(repository.commits[repository.revisions[revision]])
        for line in rest:
            value = line["value"]
            if line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        sha = repository.commit(files, revision)
        repository.messages.append(header["value"]["summary"])
        self._tell(200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}", "commitOid": sha})
