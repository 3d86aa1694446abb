"""`hsw.export --push`, by the Hub's own client against a server that takes what it uploads."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PUSH = "import sys, pathlib; from hsw.cli.main import run_main; from hsw.export import push; run_main(lambda: print("
PUSH += "push(pathlib.Path(sys.argv[1]), 'me/policy')))"


class Hub:
    """What arrived: the files of the one commit, and the token that each request came with."""

    def __init__(self, status: int = 200) -> None:
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.status, self.address = status, ""

    def answer(self, path: str, body: bytes) -> Any:
        if path.endswith("/create"):
            return {"url": f"{self.address}/me/policy"}
        if "/preupload/" in path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in paths]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"success": True, "commitOid": "1", "commitUrl": f"{self.address}/me/policy/commit/1"}
        return {}


@contextlib.contextmanager
def running(hub: Hub) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hub.tokens.add(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            content = json.dumps(hub.answer(self.path, body)).encode()
            self.send_response(hub.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()


def pushed(hub: Hub, folder: Path) -> subprocess.CompletedProcess[str]:
    here = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_mine", "HF_HOME": str(folder.parent / "hf")}
    command = [sys.executable, "-c", PUSH, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **here})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("huggingface_hub")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("---\ntags: [hsw]\n---\nA policy.\n")
    (tmp_path / "out" / "policy.onnx").write_bytes(bytes(1000))
    return tmp_path / "out"


def test_a_folder_is_pushed_as_it_is_with_the_persons_token(folder: Path) -> None:
    hub = Hub()
    with running(hub):
        done = pushed(hub, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == f"{hub.address}/me/policy/commit/1"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.tokens == {"Bearer hf_mine"}


def test_a_hub_that_refuses_is_told_in_a_sentence_and_the_folder_stays(folder: Path) -> None:
    hub = Hub(status=403)
    with running(hub):
        done = pushed(hub, folder)
    assert done.returncode == 6
    assert "is written, and the Hub did not take it" in done.stderr
    assert "hf_mine" not in done.stderr
    assert {path.name for path in folder.iterdir()} == {"README.md", "policy.onnx"}
