"""Checkpoints are read without running code in them, and matched by name and shape."""

import argparse
import datetime
import pickle
import re
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config as MMEngineConfig
from mmengine.config import ConfigDict as MMEngineConfigDict
from mmengine.logging import HistoryBuffer
from torch import Tensor

from stage1_proposals.common.checkpoints import (
    Record,
    TensorMatch,
    match_tensors,
    read_checkpoint,
    read_tensors,
    rename_by_position,
    strip_prefix,
)
from stage1_proposals.common.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x03\x04 half a zip", b"\x80\x02}q\x00", b"\x80\x05K\x01."])
@pytest.mark.parametrize(("name", "kind"), [("w.pth", "PyTorch checkpoint"), ("w.safetensors", "safetensors file")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, kind: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: damaged or not a {kind}$"):
        read_tensors(tmp_path / name)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60) | st.text(max_size=30).map(str.encode),
    suffix=st.sampled_from([".pt", ".safetensors"]),
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_bytes_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError):
        read_tensors(path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: no such checkpoint$"):
        read_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match=f"^https://host/{name}: no such checkpoint; nothing is downloaded here: get"):
        read_checkpoint(f"https://host/{name}")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)$"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("checkpoint", [torch.zeros(3), [1, 2]])
def test_a_file_of_a_single_object_is_refused(file: Path, checkpoint: object) -> None:
    torch.save(checkpoint, file)
    with pytest.raises(UserError, match=r"w\.pth: holds (Tensor|list), not a checkpoint$"):
        read_tensors(file)


@pytest.mark.parametrize(
    "checkpoint", [{"state_dict": 3}, {}, {"state_dict": {"a": 1}}, {"epoch": 1}, {1: torch.ones(1)}]
)
def test_a_checkpoint_without_named_tensors_is_refused(file: Path, checkpoint: object) -> None:
    torch.save(checkpoint, file)
    with pytest.raises(UserError, match=r"w\.pth: holds no weights$"):
        read_tensors(file)


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def save_plain_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("write", "reason"),
    [(torch.save, r"holds .*pathlib\.Path.*"), (save_plain_pickle, "is not a checkpoint of plain values")],
)
@pytest.mark.parametrize("wrap", [lambda payload: payload, lambda payload: argparse.Namespace(payload=payload)])
def test_code_in_a_checkpoint_is_named_and_not_run(
    tmp_path: Path, file: Path, write: Callable[[object, Path], None], reason: str, wrap: Callable[[object], object]
) -> None:
    write({"state_dict": {"a": torch.ones(1)}, "args": wrap(Payload(tmp_path / "ran"))}, file)
    rest = r"; only tensors and plain values are read, never code: if you trust the file, save its weights alone .*"
    with pytest.raises(UserError, match=rf"w\.pth: {reason}{rest} `torch\.save\(model\.state_dict\(\), FILE\)`$"):
        read_tensors(file)
    assert not (tmp_path / "ran").exists()


def test_options_beside_the_weights_are_allowed(file: Path) -> None:
    """DINO, DeiT and MAE keep their command line's Namespace in the checkpoint."""
    torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1), "epoch": 3}, file)
    assert read_tensors(file).keys() == {"a"}
    assert read_checkpoint(file)["args"].lr == 0.1


class Settings(dict[str, Any]):
    """A dictionary with attributes, as many programs have one of; pickled as the class of another package."""

    __module__, __qualname__ = "easydict", "EasyDict"


HARMLESS: dict[str, object] = {
    "MMEngine's history of losses": HistoryBuffer([1.0, 2.0], [1, 1]),
    "MMEngine's config": MMEngineConfig({"a": {"b": [1]}}),
    "a scalar of NumPy": np.float64(0.5),
    "an integer of NumPy": np.int64(3),
    "an array of NumPy": np.arange(3.0),
    "a path": Path("a/b"),
    "a date": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "a namespace": SimpleNamespace(lr=0.1),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_objects_beside_the_weights_are_not_made_but_passed_over(file: Path, what: str) -> None:
    beside = {"epoch": 3, "hub": {"log": [HARMLESS[what]]}, "args": argparse.Namespace(value=HARMLESS[what])}
    torch.save({"state_dict": {"a": torch.ones(1)}, **beside}, file)
    read = read_checkpoint(file)
    assert read_tensors(file) == {"a": torch.ones(1)}
    assert read["epoch"] == 3
    assert type(read["hub"]["log"][0]) is Record
    assert type(read["args"].value) is Record


@pytest.mark.parametrize("make", [Settings, MMEngineConfigDict, partial(defaultdict, list)])
def test_weights_inside_another_dictionary_are_found(
    file: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., object]
) -> None:
    easydict = ModuleType("easydict")
    easydict.EasyDict = Settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "easydict", easydict)
    torch.save({"model": make({"a": torch.ones(1)})}, file)
    assert read_tensors(file) == {"a": torch.ones(1)}


def test_getattr_in_a_checkpoint_is_not_called(file: Path) -> None:
    """MMEngine's history of losses needs it, and by it a file can name any function."""

    class Trick:
        def __reduce__(self) -> tuple[object, ...]:
            return getattr, (HistoryBuffer, "mean")

    torch.save({"state_dict": {"a": torch.ones(1)}, "trick": Trick()}, file)
    assert type(read_checkpoint(file)["trick"]) is Record


def test_a_whole_model_says_how_to_save_its_weights(file: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.BatchNorm1d(3)), file)
    with pytest.raises(UserError, match=r"holds torch\.nn\S+, .*; only tensors .* as `torch\.save\(model\.state_dict"):
        read_tensors(file)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_program_says_how_to_save_its_weights(file: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), file)
    with pytest.raises(UserError, match=r"w\.pth: is a TorchScript program, not a checkpoint: if you trust"):
        read_tensors(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weights = {"a": torch.ones(2), "b": torch.tensor([1.0, value]), "n": torch.tensor(3)}
    for check in (
        lambda match: match.require(("a",), "a.pth", "hint"),
        lambda match: match.require_all("a.pth"),
    ):
        check(match_tensors(weights | {"b": torch.ones(2)}, weights))
        with pytest.raises(UserError, match=r"^a\.pth: 1 of its 3 tensors hold NaN or infinity, the first b: its tr"):
            check(match_tensors(weights, weights))
    match_tensors(weights, {"a": torch.ones(2)}).require(("a",), "a.pth", "hint")  # of another part


def test_safetensors_are_read(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(3), "b.c": torch.ones(2, 2, dtype=torch.float16)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    read = read_tensors(tmp_path / "w.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


NESTS: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], object]] = {
    "bare": lambda tensors, other: tensors,
    "state_dict": lambda tensors, other: {"state_dict": tensors, "optimizer": other},
    "MMEngine": lambda tensors, other: {"state_dict": OrderedDict(tensors), "meta": {"epoch": 1}},
    "model": lambda tensors, other: {"model": tensors, "optimizer": other, "epoch": 1},
    "both": lambda tensors, other: {"state_dict": {"model": tensors}},
    "DINO": lambda tensors, other: {"student": other, "teacher": tensors, "epoch": 1},
    "twice": lambda tensors, other: {"model": {"state_dict": tensors}, "optimizer": other},
    "model_state_dict": lambda tensors, other: {"model_state_dict": tensors, "optimizer_state_dict": other},
    "DeepSpeed": lambda tensors, other: {"module": tensors, "optimizer": other},
    "a student alone": lambda tensors, other: {"student": tensors, "epoch": 1},
}


@pytest.mark.parametrize("nest", NESTS)
def test_a_state_dict_is_found_where_it_is_nested(file: Path, nest: str) -> None:
    tensors, other = {"x": torch.ones(1)}, {"x": torch.zeros(1)}
    torch.save(NESTS[nest](tensors, other), file)
    assert read_tensors(file) == tensors


def test_a_state_dict_that_contains_itself_ends(file: Path) -> None:
    checkpoint: dict[str, object] = {}
    checkpoint["model"] = checkpoint
    torch.save(checkpoint, file)
    with pytest.raises(UserError, match="holds no weights"):
        read_tensors(file)


@pytest.mark.parametrize("zipped", [True, False], ids=["today's format", "from before PyTorch 1.6"])
def test_a_damaged_checkpoint_is_read_or_refused(file: Path, zipped: bool) -> None:
    state = {"state_dict": {"a": torch.ones(3)}, "meta": {"epoch": 1}}
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged[: rng.integers(len(content))] if rng.random() < 0.3 else damaged)
        try:
            read_tensors(file)
            count += 1
        except UserError:
            pass
    assert 0 < count < 500


def named(prefix: str, value: float = 1.0) -> dict[str, Tensor]:
    return {f"{prefix}{name}": torch.full((2,), value) for name in ("conv.weight", "bn.bias", "layer.0.bias")}


EXPECTED = named("")


def is_complete(match: TensorMatch) -> bool:
    """Return whether all of EXPECTED is found, filled with the ones of the right encoder."""
    return match.found.keys() == EXPECTED.keys() and all(bool((value == 1).all()) for value in match.found.values())


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
    assert is_complete(match_tensors(stripped, EXPECTED))


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
def test_the_query_encoder_is_taken_not_the_momentum_encoder(query: str, momentum: str) -> None:
    """In either order; and the momentum encoder alone does not count."""
    for tensors in (named(query) | named(momentum, 0.0), named(momentum, 0.0) | named(query)):
        assert is_complete(match_tensors(strip_prefix(tensors, EXPECTED), EXPECTED))
    assert not match_tensors(strip_prefix(named(momentum), EXPECTED), EXPECTED).found


def test_tensors_are_renamed_by_position_where_all_shapes_agree() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3)}
    tensors = {"x": torch.ones(2), "y": torch.ones(3), "classifier": torch.ones(9)}
    renamed = rename_by_position(tensors, expected)
    assert list(renamed) == ["a", "b"]
    assert renamed["b"] is tensors["y"]
    assert rename_by_position({"y": torch.ones(3), "x": torch.ones(2)}, expected) == {}
    assert rename_by_position({"x": torch.ones(2)}, expected) == {}


def state(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): torch.full(shape, float(len(name))) for name, shape in shapes.items()}


SOURCE = state(
    backbone__conv1__weight=(4, 3),
    head__queries__weight=(10, 8),
    head__conv_seg__weight=(1, 8),
    roi__fc_cls__weight=(1, 8),
    roi__fc_mask__weight=(8, 8),
    projection__weight=(8, 2),
)
TARGET = state(
    backbone__conv1__weight=(4, 3),
    head__queries__weight=(10, 8),
    head__conv_seg__weight=(3, 8),
    roi__fc_cls__weight=(3, 8),
    roi__fc_mask__weight=(8, 8),
    neck__extra__weight=(1,),
)
CLASS_BRANCH = re.compile(r"\.(fc_cls|conv_seg)\.")
PARTS = ("head.queries", "roi")


def test_tensors_that_fit_are_found_and_the_others_left_with_a_reason() -> None:
    match = match_tensors(SOURCE, TARGET, CLASS_BRANCH)
    assert set(match.found) == {"backbone.conv1.weight", "head.queries.weight", "roi.fc_mask.weight"}
    assert all(match.found[name] is SOURCE[name] for name in match.found)
    assert match.left == {
        "head.conv_seg.weight": "class branch: shape (1, 8), the model's is (3, 8)",
        "roi.fc_cls.weight": "class branch: shape (1, 8), the model's is (3, 8)",
        "projection.weight": "the model has no such tensor",
    }
    assert set(match.missing) == {"head.conv_seg.weight", "roi.fc_cls.weight", "neck.extra.weight"}
    assert match_tensors(SOURCE, TARGET).left["roi.fc_cls.weight"] == "shape (1, 8), the model's is (3, 8)"


def test_class_branches_of_the_same_shape_are_found() -> None:
    match = match_tensors(SOURCE, SOURCE, CLASS_BRANCH)
    assert set(match.found) == set(SOURCE)
    assert not match.left
    assert not match.missing


def test_class_branches_may_be_missing_but_no_other_required_tensor() -> None:
    match_tensors(SOURCE, TARGET, CLASS_BRANCH).require(PARTS, "a.pth", "hint")
    with pytest.raises(UserError, match=r"a\.pth: 1 tensors .* roi\.fc_cls\.weight \(shape \(1, 8\), the model's"):
        match_tensors(SOURCE, TARGET).require(PARTS, "a.pth", "hint")
    partial = {name: value for name, value in SOURCE.items() if "queries" not in name}
    with pytest.raises(
        UserError,
        match=r"^a\.pth: 1 tensors .* head\.queries\.weight \(not in the checkpoint\); hint$",
    ):
        match_tensors(partial, TARGET, CLASS_BRANCH).require(PARTS, "a.pth", "hint")
    narrow = SOURCE | {"roi.fc_mask.weight": torch.ones(4, 4)}
    with pytest.raises(UserError, match=r"fc_mask\.weight \(shape \(4, 4\), the model's is \(8, 8\)\)"):
        match_tensors(narrow, TARGET, CLASS_BRANCH).require(PARTS, "a.pth", "hint")


def test_a_checkpoint_of_the_same_model_differs_in_nothing() -> None:
    match_tensors(SOURCE, SOURCE).require_all("a.pth")
    with pytest.raises(
        UserError, match=r"^a\.pth: not a checkpoint of this model; 4 tensors differ: \S+ \(class branch"
    ):
        match_tensors(SOURCE, TARGET, CLASS_BRANCH).require_all("a.pth")
    with pytest.raises(UserError, match=r"1 tensors differ: neck\.extra\.weight \(not in the checkpoint\)$"):
        match_tensors({}, state(neck__extra__weight=(1,))).require_all("a.pth")


def test_counters_of_batch_norms_are_not_required() -> None:
    target = state(backbone__bn1__num_batches_tracked=(), backbone__bn1__weight=(4,))
    match = match_tensors(state(backbone__bn1__weight=(4,)), target)
    match.require(["backbone."], "a.pth", "hint")
    assert match.lacking() == []
    assert match.missing == ("backbone.bn1.num_batches_tracked",)
    with pytest.raises(UserError, match=r"1 tensors .* backbone\.bn1\.weight"):
        match_tensors({}, target).require(["backbone."], "a.pth", "hint")


def test_tensors_are_matched_with_a_network_on_the_meta_device() -> None:
    with torch.device("meta"):
        expected = torch.nn.Linear(2, 3).state_dict()
    match = match_tensors({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, expected)
    assert list(match.found) == ["weight"]
    assert match.lacking() == ["bias"]
    assert match.left == {"bias": "shape (2,), the model's is (3,)"}
