"""Weights are located, and downloaded completely or not at all."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.backbones.weights import locate_weights, read_backbone_weights, weights_cache
from stage1_proposals.common.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.pth: no such file"):
        locate_weights("densecl_r50", tmp_path / "gone.pth")
    with pytest.raises(UserError, match="there are lite0_imagenet, dinov2_s, densecl_r50"):
        locate_weights("no-such", tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "get https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors and"),
        (
            "vit_small_patch14_dinov2.lvd142m",
            "get https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors and",
        ),
        ("selecsls42", "timm knows of no public ones"),
    ],
)
def test_timms_weights_are_not_downloaded_but_named(name: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    with pytest.raises(UserError, match=f"backbone {name} needs a file .*{file}.* pass the file .WEIGHTS=FILE."):
        locate_weights(name)


CONTENT = bytes(range(256)) * 100


class Server(ThreadingHTTPServer):
    """Serves CONTENT in one of these ways."""

    behaviour = "whole"
    requests = 0
    together: threading.Barrier | None = None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.together:
            self.server.together.wait(10)
        behaviour = self.server.behaviour
        if behaviour == "missing":
            self.send_error(404)
        elif behaviour == "hangs up":
            self.connection.close()
        elif behaviour == "half of the chunks":
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(CONTENT) + CONTENT[:1000])
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            body = {"whole": CONTENT, "other": CONTENT[::-1], "half": CONTENT[:1000]}[behaviour]
            self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The weights of densecl_r50 come from 127.0.0.1; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{http.server_address[1]}/w.pth"
        entry = replace(CATALOGUE["densecl_r50"], url=url, sha256_prefix=hashlib.sha256(CONTENT).hexdigest()[:8])
        monkeypatch.setitem(CATALOGUE, "densecl_r50", entry)
        yield http
        http.shutdown()


def test_a_download_is_kept_for_the_next_time(server: Server) -> None:
    path = locate_weights("densecl_r50")
    assert path.read_bytes() == CONTENT
    assert locate_weights("densecl_r50") == path
    assert server.requests == 1
    assert list(weights_cache().iterdir()) == [path]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("missing", "404"),
        ("other", "invalid hash"),
        ("half", "invalid hash"),
        ("half of the chunks", "IncompleteRead"),
        ("hangs up", ""),
    ],
)
def test_a_download_that_fails_says_what_to_do_and_leaves_nothing(server: Server, behaviour: str, reason: str) -> None:
    server.behaviour = behaviour
    cached = weights_cache() / "w.pth"
    with pytest.raises(
        UserError,
        match=rf"weights of densecl_r50 could not be downloaded \(.*{reason}.*\): put http://.*/w\.pth at {cached}, "
        r"or pass the file \(WEIGHTS=FILE\)$",
    ):
        locate_weights("densecl_r50")
    assert not list(weights_cache().iterdir())
    server.behaviour = "whole"
    assert locate_weights("densecl_r50").read_bytes() == CONTENT


def test_without_a_network_the_message_says_which_file_to_put_where(server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"could not be downloaded .*refused.*put http://.*/w\.pth at .*/w\.pth"):
        locate_weights("densecl_r50")
    (weights_cache() / "w.pth").write_bytes(CONTENT)
    assert locate_weights("densecl_r50") == weights_cache() / "w.pth"


def test_another_file_in_the_cache_is_refused(server: Server) -> None:
    weights_cache().mkdir(parents=True)
    (weights_cache() / "w.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"w\.pth: is damaged or another file, .* delete it to have it downloaded"):
        locate_weights("densecl_r50")
    assert server.requests == 0


def test_a_cache_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=r"could not be downloaded .*Not a directory.*put http"):
        locate_weights("densecl_r50")


def test_two_downloads_at_once_are_fine(server: Server) -> None:
    """Both ask before either is answered."""
    server.together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(locate_weights, ["densecl_r50"] * 2))
    assert server.requests == 2
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == CONTENT
    assert list(weights_cache().iterdir()) == [paths[0]]


def test_an_interrupted_download_leaves_nothing_under_the_final_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.hub.tqdm, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            locate_weights("densecl_r50")
    assert not list(weights_cache().iterdir())
    assert locate_weights("densecl_r50").read_bytes() == CONTENT


def test_a_file_given_is_taken_as_it_is(server: Server, file: Path) -> None:
    file.write_bytes(b"the user's own")
    assert locate_weights("densecl_r50", file) == file
    assert server.requests == 0


def test_weights_that_are_not_finite_are_refused(file: Path) -> None:
    weights = read_backbone_weights("lite0_imagenet")
    weights["blocks.0.0.conv_dw.weight"][0, 0, 0, 0] = float("nan")
    torch.save({"state_dict": weights}, file)
    with pytest.raises(UserError, match=r"^\S+w\.pth: 1 of its \d+ tensors .* first blocks\.0\.0\.conv_dw\.weight: "):
        read_backbone_weights("lite0_imagenet", file)
