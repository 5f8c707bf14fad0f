"""Publishing on the hub and loading from it, against a stand-in for the hub on this machine."""

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank, load_bank, publish
from xbm_jax.errors import BankError
from xbm_jax.masks import methods

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks for: a repository, commits of whole files, files with their digests."""

    files: dict[str, bytes]

    def log_message(self, *_args):
        pass

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        content = self.files.get(self.path.partition("?")[0].rsplit("/", 1)[-1])
        if "/resolve/" not in self.path or content is None:
            return self.answer(404, X_Error_Code="EntryNotFound")
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None] if first else content
        return self.answer(206 if first else 200, part, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        here = f"http://{self.headers['Host']}/owner/name"
        found = {"url": here, "commitUrl": f"{here}/commit/{COMMIT}", "commitOid": COMMIT, "id": "owner/name"}
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            found = {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(200, json.dumps(found).encode(), Content_Type="application/json")


PUBLISH = """
import sys
sys.path.insert(0, sys.argv[1])
from tasks import tiny
import xbm_jax as xbm
bank = xbm.load_bank(sys.argv[2], tiny.network())
address = xbm.banks.publish(bank, "owner/name")
loaded = xbm.load_bank(address, tiny.network())
assert loaded.get("t") == bank.get("t") and loaded.names == ["t"]
tiny.assert_same_bits(loaded.chip, bank.chip)
assert xbm.load_bank(address + "@main", tiny.network()).names == ["t"]
try:
    xbm.load_bank("hf://owner/name@main/x")
except xbm.BankError as error:
    print(error)
print(address)
"""


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface-hub is not installed")
def test_a_bank_is_published_and_loaded(tmp_path):
    chip = tiny.chip("ideal")
    bank = MaskBank.create(tmp_path / "bank", chip)
    bank.put("t", tiny.made_up_task(chip, methods.xbm()))
    from xbm_jax.banks import save_chip

    save_chip(chip, tmp_path / "bank" / "chip")
    handler = type("Files", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = f"http://127.0.0.1:{server.server_port}"
    env = os.environ | {"HF_ENDPOINT": there, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "none"}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", PUBLISH, str(Path(__file__).parents[1]), str(bank.folder)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    refused, address = done.stdout.splitlines()
    assert address == "hf://owner/name" and "hf://owner/repository" in refused
    assert sorted(handler.files) == ["README.md", "bank.safetensors"]
    readme = handler.files["README.md"].decode()
    assert 'xbm.load_bank("hf://owner/name")' in readme and "| t | xbm | 4 |" in readme


@pytest.mark.parametrize("repository", ["", "name", "owner/", "/name", "a/b/c"])
def test_a_repository_has_an_owner_and_a_name(tmp_path, repository):
    bank = MaskBank.create(tmp_path, tiny.chip("ideal"))
    with pytest.raises(BankError, match=r"repository = .*: owner/repository"):
        publish(bank, repository)
    with pytest.raises(BankError, match="hf://owner/repository"):
        load_bank("hf://name")


def test_publishing_needs_the_client(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    bank = MaskBank.create(tmp_path, tiny.chip("ideal"))
    for act in (lambda: publish(bank, "owner/name"), lambda: load_bank("hf://owner/name")):
        with pytest.raises(BankError, match=r"pip install 'xbm_jax\[hub\]'"):
            act()
