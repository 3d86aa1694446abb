"""A server that takes what wandb uploads, and answers as little as wandb accepts."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef" * 2 + "feedface"


class WandbServer:
    """What arrived: runs (the last upsert's variables, by run id) and lines (by run id and file)."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.lines: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/graphql":
            return 200, {"data": self._data(body["query"], body.get("variables") or {})}
        if path.endswith("/file_stream"):
            for name, file in body.get("files", {}).items():
                self.lines[path.split("/")[-2], name] += map(json.loads, file["content"])
            return 200, {}
        return 404, {}

    def _data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        if "UpsertBucket" not in query:
            files = {"runID": "1", "uploadHeaders": [], "files": []}  # wandb's service dies of an answer without it
            return {"viewer": viewer, "serverInfo": {"features": []}, "model": None, "createRunFiles": files}
        run, name = variables["name"], variables["displayName"]
        self.runs[run] = self.runs.get(run, {}) | {key: value for key, value in variables.items() if value is not None}
        project = {"id": "1", "name": variables["project"], "entity": {"id": "1", "name": "me"}}
        bucket = {"id": run, "name": run, "displayName": name, "config": "{}", "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}


@contextlib.contextmanager
def serve() -> Iterator[tuple[WandbServer, dict[str, str]]]:
    """The server, and the environment variables of its clients."""
    wandb = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            status, answer = wandb.answer(self.path, json.loads(content or b"null"))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield wandb, {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": KEY}
        server.shutdown()
