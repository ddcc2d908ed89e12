"""Weights are found, fetched whole or not at all, and read without running anything."""

import argparse
import contextlib
import hashlib
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.backbones.weights import (
    Fit,
    fit_by_name,
    locate_weights,
    name_by_position,
    read_tensors,
    strip_prefix,
    weights_cache,
)
from stage1_proposals.common.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x03\x04 half a zip", b"\x80\x02}q\x00", b"\x80\x05K\x01."])
@pytest.mark.parametrize(("name", "kind"), [("w.pth", "PyTorch checkpoint"), ("w.safetensors", "safetensors file")])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, name: str, kind: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: not a {kind}"):
        read_tensors(tmp_path / name)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60) | st.text(max_size=30).map(str.encode),
    suffix=st.sampled_from([".pt", ".safetensors"]),
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_bytes_are_refused_or_hold_no_tensors(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert read_tensors(path) == {}


@pytest.mark.parametrize("checkpoint", [torch.zeros(3), [1, 2], {"state_dict": 3}, {}, {"state_dict": {"a": 1}}])
def test_a_checkpoint_without_tensors_by_name_holds_none(file: Path, checkpoint: object) -> None:
    torch.save(checkpoint, file)
    assert read_tensors(file) == {}


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
@pytest.mark.parametrize("wrap", [lambda payload: payload, lambda payload: argparse.Namespace(payload=payload)])
def test_code_in_a_checkpoint_is_not_run(
    tmp_path: Path, file: Path, write: Callable[[object, Path], object], wrap: Callable[[object], object]
) -> None:
    write({"state_dict": {"a": torch.ones(1)}, "args": wrap(Payload(tmp_path / "ran"))}, file)
    with pytest.raises(UserError, match="code in a checkpoint is not run"):
        read_tensors(file)
    assert not (tmp_path / "ran").exists()


def test_options_beside_the_weights_do_no_harm(file: Path) -> None:
    """DINO, DeiT and MAE keep their command line's Namespace in the checkpoint."""
    torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1), "epoch": 3}, file)
    assert read_tensors(file).keys() == {"a"}


def test_safetensors_are_read(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(3), "b.c": torch.ones(2, 2, dtype=torch.float16)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    read = read_tensors(tmp_path / "w.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


NESTS: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], object]] = {
    "bare": lambda tensors, other: tensors,
    "state_dict": lambda tensors, other: {"state_dict": tensors, "optimizer": other},
    "model": lambda tensors, other: {"model": tensors, "optimizer": other, "epoch": 1},
    "both": lambda tensors, other: {"state_dict": {"model": tensors}},
    "DINO": lambda tensors, other: {"student": other, "teacher": tensors, "epoch": 1},
    "a student alone": lambda tensors, other: {"student": tensors, "epoch": 1},
}


@pytest.mark.parametrize("nest", NESTS)
def test_a_state_dict_is_found_in_its_nest(file: Path, nest: str) -> None:
    tensors, other = {"x": torch.ones(1)}, {"x": torch.zeros(1)}
    torch.save(NESTS[nest](tensors, other), file)
    assert read_tensors(file) == tensors


def named(prefix: str, value: float = 1.0) -> dict[str, Tensor]:
    return {f"{prefix}{name}": torch.full((2,), value) for name in ("conv.weight", "bn.bias", "layer.0.bias")}


EXPECTED = named("")


def is_whole(fit: Fit) -> bool:
    """Whether all of EXPECTED is there, filled with the ones of the right encoder."""
    return fit.found.keys() == EXPECTED.keys() and all(bool((value == 1).all()) for value in fit.found.values())


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "backbone.", "module.", "module.backbone.", "encoder_q.", "module.encoder_q.", "encoder_q.0."),
        *("module.base_encoder.", "teacher.backbone.", "encoder.", "model.", "_orig_mod.", "module.encoder_q.0."),
    ],
)
def test_known_prefixes_are_stripped(prefix: str) -> None:
    others = {"queue": torch.zeros(3), "neck.0.weight": torch.zeros(3), "head.bias": torch.zeros(1)}
    stripped = strip_prefix(others | named(prefix), EXPECTED)
    assert is_whole(fit_by_name(stripped, EXPECTED))


@pytest.mark.parametrize(
    ("query", "momentum"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("encoder_q.0.", "encoder_k.0."),
        ("backbone.", "encoder_k.0."),
        ("backbone.", "encoder_k.module.0."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("backbone.", "momentum_backbone."),
        ("backbone.", "target_net.0."),
    ],
)
def test_the_query_encoder_is_taken_not_the_momentum_one(query: str, momentum: str) -> None:
    """Whichever stands first; and the momentum encoder alone is none."""
    for tensors in (named(query) | named(momentum, 0.0), named(momentum, 0.0) | named(query)):
        assert is_whole(fit_by_name(strip_prefix(tensors, EXPECTED), EXPECTED))
    assert not fit_by_name(strip_prefix(named(momentum), EXPECTED), EXPECTED).found


def test_what_does_not_fit_is_told_apart() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "c.num_batches_tracked": torch.tensor(5), "d": torch.zeros(1)}
    fit = fit_by_name({"a": torch.ones(2), "b": torch.ones(4), "e": torch.ones(1)}, expected)
    assert fit.found.keys() == {"a", "c.num_batches_tracked"}
    assert fit.found["c.num_batches_tracked"] == 0
    assert fit.missing == ["d"]
    assert fit.misshapen == ["b (4,), not (3,)"]


def test_names_are_given_by_position_where_all_shapes_agree() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3)}
    tensors = {"x": torch.ones(2), "y": torch.ones(3), "classifier": torch.ones(9)}
    named_so = name_by_position(tensors, expected)
    assert list(named_so) == ["a", "b"]
    assert named_so["b"] is tensors["y"]
    assert name_by_position({"y": torch.ones(3), "x": torch.ones(2)}, expected) == {}
    assert name_by_position({"x": torch.ones(2)}, expected) == {}


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.pth: no such file"):
        locate_weights("densecl_r50", tmp_path / "gone.pth")
    with pytest.raises(UserError, match="there are lite0_imagenet, densecl_r50"):
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
