import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope

import stage2_training.models.timm_backbone  # noqa: F401 (registers TimmBackbone)
from stage1_proposals.backbones.weights import locate_weights, new_network, read_backbone_weights
from stage1_proposals.common.checkpoints import match_tensors
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage2_training.runs import initial_weights as initialisation
from stage2_training.runs.initial_weights import detector_traits, name_as_backbone, transfer_report, write_transfer
from stage2_training.runs.work_dir import Result, WorkDir

LITE0 = {"type": "TimmBackbone", "model_name": "tf_efficientnet_lite0"}
RESNET = {"type": "ResNet", "depth": 50}


def detector(backbone: dict) -> dict[str, torch.Tensor]:
    """The state dict of a detector with this backbone and one more tensor, without memory for its values."""
    with torch.device("meta"), DefaultScope.overwrite_default_scope("mmdet"):
        weights = MODELS.build(backbone).state_dict()
    return {f"backbone.{name}": value for name, value in weights.items()} | {"neck.weight": torch.ones(1)}


def named(name: str, detector: str = "KNet", **options: str) -> initialisation.Initialisation:
    return initialisation.by_name(name, "knet", detector, **options)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "r50.pth"
    torch.save(new_network("resnet50").state_dict(), path)
    return path


@pytest.fixture
def resnet_file(resnet, tmp_path) -> str:
    """A file of its own, to be changed."""
    return str(shutil.copy(resnet, tmp_path))


def test_stage_1s_backbone_fills_a_detector_of_its_architecture(write_shards):
    used = {"name": "lite0_imagenet", "weights": None, "sha256": file_sha256(locate_weights("lite0_imagenet"))}
    start = initialisation.stage1_backbone(write_shards([[]], used))
    target = detector(LITE0)
    match = start.match(target)
    assert match.missing == ("neck.weight",)
    bundled = read_backbone_weights("lite0_imagenet")
    assert torch.equal(match.found["backbone.model.conv_stem.weight"], bundled["conv_stem.weight"])

    other = detector(RESNET)
    with pytest.raises(UserError, match=r"lite0_imagenet \(.*another than stage 1's.*--backbone NAME"):
        start.match(other)


def test_stage_1s_file_must_still_be_the_one_it_used(write_shards, resnet_file):
    used = {"name": "densecl_r50", "weights": resnet_file, "sha256": "0" * 64}
    shards = write_shards([[]], used)
    with pytest.raises(UserError, match=r"is not the file that stage 1 used.*--weights FILE"):
        initialisation.stage1_backbone(shards)
    Path(resnet_file).unlink()
    with pytest.raises(UserError, match="no such file; pass --backbone densecl_r50 --weights FILE"):
        initialisation.stage1_backbone(shards)


def missing_of_backbone(start: initialisation.Initialisation, target: dict) -> list[str]:
    return [name for name in start.match(target).missing if name.startswith("backbone")]


def test_supervised_weights_follow_the_models_backbone(resnet_file):
    lite0, resnet = detector(LITE0), detector(RESNET)
    assert not missing_of_backbone(named("imagenet"), lite0)
    given = named("imagenet", weights=resnet_file)
    assert not missing_of_backbone(given, resnet)
    assert given.record.as_dict() == {"kind": "imagenet", "sha256": file_sha256(resnet_file)}
    for target in ({"backbone.unknown": torch.ones(1)}, {"neck.weight": torch.ones(1)}):
        with pytest.raises(UserError, match="imagenet: these are weights of tf_efficientnet_lite0, resnet50, and the"):
            named("imagenet").read(target)
    with pytest.raises(UserError, match="no such file"):
        named("imagenet", weights=resnet_file + "x")


@pytest.mark.parametrize("name", ["densecl", "mocov2_r50"])
def test_self_supervised_backbones_are_for_the_architecture_the_catalogue_has_them_in(name, resnet_file):
    start = named(name, weights=resnet_file)
    assert start.record.as_dict() == {"kind": name, "sha256": file_sha256(resnet_file)}
    target = detector(RESNET)
    assert start.match(target).missing == ("neck.weight",)


@pytest.mark.parametrize("name", ["swav", "imagenet_r50"])
def test_on_another_backbone_they_are_refused(name, monkeypatch):
    monkeypatch.setattr(initialisation, "read_backbone_weights", None)  # not even read
    with pytest.raises(UserError, match=rf"^--init {name}: these are weights of resnet50, and the model's backbone is"):
        named(name).read(detector(LITE0))


def test_a_backbone_without_counters_of_steps_is_whole(resnet_file):
    """Files of before PyTorch 0.4.1 have none."""
    weights = {name: value for name, value in torch.load(resnet_file).items() if "num_batches" not in name}
    torch.save(weights, resnet_file)
    resnet = detector(RESNET)
    for start in (named(resnet_file), named("swav", weights=resnet_file)):
        start.match(resnet)


NESTS = {
    "bare": lambda weights: weights,
    "MMEngine's": lambda weights: {"state_dict": weights, "message_hub": {"log": HistoryBuffer([1.0], [1])}},
    "a trainer's": lambda weights: {"model": weights, "best": np.float64(0.5), "output": Path("out")},
    "twice": lambda weights: {"model": {"state_dict": weights}},
    "in processes": lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
    "compiled": lambda weights: {"model": {f"_orig_mod.{name}": value for name, value in weights.items()}},
}


@pytest.mark.parametrize("nest", NESTS)
def test_weights_and_init_read_the_same_files(nest, resnet_file):
    """As a backbone's weights, as a checkpoint of a backbone, and of a detector."""
    backbone, target = torch.load(resnet_file), detector(RESNET)
    torch.save(NESTS[nest](backbone), resnet_file)
    for start in (named("densecl", weights=resnet_file), named(resnet_file)):
        assert start.match(target).missing == ("neck.weight",)
    whole = {f"backbone.{name}": value for name, value in backbone.items()} | {"neck.weight": torch.full((1,), 2.0)}
    torch.save(NESTS[nest](whole), resnet_file)
    match = named(resnet_file).match(target)
    assert not match.missing
    assert match.found["neck.weight"] == 2


@pytest.mark.parametrize("prefix", ["encoder_q.", "module.encoder_q.", "backbone.", "teacher.backbone."])
def test_a_learners_checkpoint_fills_the_backbone(prefix, resnet_file):
    weights = {f"{prefix}{name}": value for name, value in torch.load(resnet_file).items()}
    torch.save({"state_dict": weights | {"queue": torch.ones(3)}}, resnet_file)
    assert named(resnet_file).match(detector(RESNET)).missing == ("neck.weight",)


def test_a_learners_checkpoint_fills_the_backbone_of_timm(tmp_path):
    weights = {f"encoder_q.{name}": value for name, value in read_backbone_weights("lite0_imagenet").items()}
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    assert named(str(tmp_path / "a.pth")).match(detector(LITE0)).missing == ("neck.weight",)


@pytest.mark.parametrize("option", ["init", "weights"])
def test_a_checkpoint_that_diverged_is_named(option, resnet_file):
    weights = torch.load(resnet_file)
    weights["layer4.0.conv1.weight"][0] = float("nan")
    torch.save({"state_dict": weights}, resnet_file)
    start = named(resnet_file) if option == "init" else named("densecl", weights=resnet_file)
    with pytest.raises(UserError, match=rf"^{resnet_file}: 1 of .* tensors hold NaN .*layer4\.0\.conv1\.weight: its"):
        start.match(detector(RESNET))


def test_names_and_options_that_do_not_go_together_are_refused(resnet_file):
    for name in ("scratch", "imagenet", "densecl_r50", resnet_file):
        with pytest.raises(UserError, match=r"^--checkpoint goes with --init sp, pseudo or coco, not .*--init FILE$"):
            named(name, checkpoint=resnet_file)
    for name in ("scratch", "sp", "pseudo", "coco", resnet_file):
        with pytest.raises(UserError, match=r"^--weights goes with --init imagenet, densecl, swav or mocov2"):
            named(name, weights=resnet_file)
    with pytest.raises(UserError, match=r"^--init denscl: use scratch, imagenet, .*, sp, pseudo or coco, or a check"):
        named("denscl")


def test_the_published_knet_is_for_knet_alone_and_leaves_its_classifiers(tmp_path):
    with pytest.raises(UserError, match=r"^--init coco is a published K-Net, and the model is QueryInst"):
        named("coco", detector="QueryInst")
    names = ("backbone.a", "neck.b", "rpn_head.c", "rpn_head.conv_seg.weight", "roi_head.mask_head.0.fc_cls.weight")
    target = {name: torch.zeros(2) for name in names}
    for classes in (2, 80):  # the same number of classes, and another
        weights = {name: torch.ones(classes if name in names[3:] else 2) for name in names}
        torch.save({"state_dict": weights}, tmp_path / "knet.pth")
        start = named("coco", checkpoint=str(tmp_path / "knet.pth"))
        assert start.match(target).missing == (() if classes == 2 else names[3:])
    for lost in names[:3]:
        torch.save({"state_dict": {name: torch.ones(2) for name in names if name != lost}}, tmp_path / "knet.pth")
        with pytest.raises(
            UserError, match=rf"{lost} \(not in the checkpoint\); it is the K-Net of configs/models/knet"
        ):
            start.match(target)


def test_the_published_knet_is_downloaded_once_and_its_hash_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    published = tmp_path / "saliency-prompt" / "weights" / initialisation.PUBLISHED_KNET.rsplit("/", 1)[1]
    assert f"-{initialisation.PUBLISHED_KNET_SHA256}." in published.name

    def unplugged(url, *args, **kwargs):
        raise OSError(f"no route to {url}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unplugged)
    where = rf"put {initialisation.PUBLISHED_KNET} at {published}, or pass the file \(CHECKPOINT=FILE\)$"
    with pytest.raises(UserError, match=rf"^the published K-Net could not be downloaded \(no route to .*\): {where}"):
        named("coco")
    torch.save({"state_dict": {"backbone.a": torch.ones(1)}}, published)
    with pytest.raises(UserError, match=r"is damaged or another file, its SHA-256 does not start with 8a8645d4"):
        named("coco")
    monkeypatch.setattr(initialisation, "PUBLISHED_KNET_SHA256", file_sha256(published)[:8])
    assert named("coco").record.as_dict() == {"kind": "coco", "sha256": file_sha256(published)}


def test_a_file_may_be_a_detector_or_a_bare_backbone(tmp_path, resnet_file):
    resnet = detector(RESNET)
    bare = initialisation.checkpoint_file(resnet_file, "KNet")
    assert bare.match(resnet).missing == ("neck.weight",)
    torch.save({"state_dict": {"neck.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    incomplete = initialisation.checkpoint_file(str(tmp_path / "detector.pth"), "KNet")
    assert set(incomplete.read(resnet)) == {"neck.weight"}
    with pytest.raises(UserError, match=r"backbone\.conv1\.weight"):
        incomplete.match(resnet)


@pytest.mark.parametrize(
    ("init", "directory", "command"),
    [("sp", "knet", "make pretrain"), ("pseudo", "knet-pseudo", "make pretrain PROMPTS=off")],
)
def test_pretraining_is_the_default_once_it_is_finished(tmp_path, monkeypatch, init, directory, command):
    monkeypatch.chdir(tmp_path)
    work = WorkDir(initialisation.pretraining_dir("configs/models/knet.py", init == "sp"))
    assert work.path == Path("work_dirs/pretrain") / directory
    message = rf"pre-training of knet was not run in {work.path}: run `{command}`, or pass --checkpoint FILE"
    with pytest.raises(UserError, match=message):
        named(init)
    work.path.mkdir(parents=True)
    torch.save({"state_dict": {"a": torch.ones(1)}}, work.path / "iter_5.pth")
    (work.path / "last_checkpoint").write_text(str(work.path / "iter_5.pth"))
    with pytest.raises(UserError, match="is not finished"):
        named(init)
    work.finish(Result(str(work.path / "iter_5.pth"), {}))
    for start in (named(init), named(init, checkpoint=str(work.path))):
        assert start.source == f"work_dirs/pretrain/{directory}/iter_5.pth"
        assert start.record.kind == init
        assert {"backbone.", "rpn_head.init_kernels", "roi_head.mask_head"} <= set(start.needed)
    with pytest.raises(UserError, match="no such checkpoint"):
        named(init, checkpoint="elsewhere.pth")


def test_scratch_takes_nothing():
    start = named("scratch")
    assert start.record.as_dict() == {"kind": "scratch"}
    assert start.read(detector(RESNET)) == {}
    assert start.needed == ()


def state(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}


SOURCE = state(
    backbone__conv1__weight=(4, 3),
    rpn_head__init_kernels__weight=(10, 8),
    rpn_head__conv_seg__weight=(1, 8),
    roi_head__mask_head__0__fc_cls__weight=(1, 8),
    roi_head__mask_head__0__fc_mask__weight=(8, 8),
    kernel_supervision__linear__weight=(8, 2),
)
TARGET = state(
    backbone__conv1__weight=(4, 3),
    rpn_head__init_kernels__weight=(10, 8),
    rpn_head__conv_seg__weight=(3, 8),
    roi_head__mask_head__0__fc_cls__weight=(3, 8),
    roi_head__mask_head__0__fc_mask__weight=(8, 8),
    neck__extra__weight=(1,),
)


@pytest.mark.parametrize("classes", [1, 3])
def test_the_class_agnostic_mask_of_pretraining_serves_each_class(classes, tmp_path):
    """QueryInst's; its class scores start anew, and pseudo classes are not taken over at all."""
    pretrained = state(
        backbone__conv1__weight=(4, 3),
        neck__conv__weight=(2,),
        rpn_head__x__weight=(2,),
        roi_head__bbox_head__0__fc_cls__weight=(1, 8),
    )
    row = {
        "roi_head.mask_head.0.conv_logits.weight": torch.rand(1, 8, 1, 1),
        "roi_head.mask_head.0.conv_logits.bias": torch.rand(1),
    }
    target = {
        **{name: torch.zeros_like(tensor) for name, tensor in pretrained.items()},
        **{name: torch.zeros(classes, *tensor.shape[1:]) for name, tensor in row.items()},
        "roi_head.bbox_head.0.fc_cls.weight": torch.zeros(classes, 8),
    }
    path = tmp_path / "pretrained.pth"
    torch.save({"state_dict": pretrained | row}, path)
    match = named("sp", "QueryInst", checkpoint=str(path)).match(target)
    for name, tensor in row.items():
        assert torch.equal(match.found[name], tensor.repeat(classes, *[1] * (tensor.ndim - 1)))
    assert ("roi_head.bbox_head.0.fc_cls.weight" in match.found) == (classes == 1)
    report = transfer_report(match, "a.pth")
    assert ("each of 3 classes has the class-agnostic row (2)" in report) == (classes == 3)

    torch.save({"state_dict": pretrained | row, "meta": {"dataset_meta": {"classes": ["cluster 0"]}}}, path)
    assert not set(named("sp", "QueryInst", checkpoint=str(path)).match(target).found) & set(row)


@pytest.mark.parametrize("wanted", [2, 4, 10])
def test_another_number_of_queries_takes_the_first_or_repeats_all_with_noise(wanted, tmp_path):
    kernels = torch.randn(4, 8, 1, 1)
    target = {"backbone.x": torch.ones(1), "rpn_head.init_kernels.weight": torch.zeros(wanted, 8, 1, 1)}
    torch.save(
        {"state_dict": {"backbone.x": torch.ones(1), "rpn_head.init_kernels.weight": kernels}}, tmp_path / "a.pth"
    )
    match = named(str(tmp_path / "a.pth")).match(target)
    found = match.found["rpn_head.init_kernels.weight"]
    assert found.shape == (wanted, 8, 1, 1)
    assert torch.equal(found[:4], kernels[:wanted])
    for row in range(4, wanted):  # each near its own, and unlike the other repetitions
        assert (found[row] - kernels).flatten(1).norm(dim=1).argmin() == row % 4
    assert len(found.flatten(1).unique(dim=0)) == wanted
    report = transfer_report(match, "a.pth")
    assert ("the first of 4 queries" in report) == (wanted == 2)
    assert ("4 queries repeated with noise" in report) == (wanted == 10)


def test_a_transfer_is_reported_as_table_and_json(tmp_path):
    match = match_tensors(SOURCE, TARGET, detector_traits("KNet").class_branch)
    report = transfer_report(match, "a.pth")
    assert report.startswith("Initial weights: a.pth\npart ")
    rows = {line.split()[0]: line.split()[1:] for line in report.splitlines()}
    assert rows["roi_head.mask_head"] == ["1", "1", "1"]
    assert rows["neck"] == ["-", "-", "1"]
    assert "left in rpn_head.conv_seg: class branch: shape (1, 8), the model's is (3, 8) (1)" in report
    write_transfer(match, tmp_path / "transfer.json", "a.pth")
    assert (tmp_path / "transfer.txt").read_text() == f"{report}\n"
    written = json.loads((tmp_path / "transfer.json").read_text())
    assert set(written["taken"]) == set(match.found)
    assert written["left"] == match.left
    assert set(written["missing"]) == set(match.missing)


def test_a_bare_backbone_is_named_as_inside_the_detector():
    bare = state(conv1__weight=(4, 3), layer1__0__conv1__weight=(4, 4))
    direct = state(backbone__conv1__weight=(4, 3), backbone__layer1__0__conv1__weight=(4, 4))
    wrapped = {name.replace("backbone.", "backbone.model."): value for name, value in direct.items()}
    assert set(name_as_backbone(bare, direct)) == set(direct)
    assert set(name_as_backbone(bare, wrapped)) == set(wrapped)
    assert set(name_as_backbone(bare, {})) == set(direct)
