import numpy as np
import pytest
import torch
from PIL import Image

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json
from stage1_proposals.common.system import choose_device
from stage1_proposals.images.decode import read_image
from stage2_training.config.compose import finetuning_config, pretraining_config
from stage2_training.config.evaluation_config import image_side
from stage2_training.config.overrides import Overrides
from stage2_training.inference.predictor import Predictor, detect, image_loader, load_detector, preprocess
from stage2_training.runs import train as training
from tests import tiny_knet


@pytest.fixture
def config(write_labels):
    choose_device("cpu")
    small = (*tiny_knet.MODEL, *tiny_knet.TEST_IMAGES)
    overrides = Overrides(data_root=str(write_labels(images=3, size=(48, 80))), workers=0, cfg_options=small)
    return finetuning_config("knet_lite0", "demo", overrides=overrides)


def test_an_image_is_predicted_as_in_the_test_loop(config, tmp_path):
    torch.save({"state_dict": training.initial_model(config)}, tmp_path / "a.pth")
    model = load_detector(config, tmp_path / "a.pth")
    assert not model.training
    batches = [preprocess(model, batch) for batch in image_loader(config)]
    assert len(batches) == 3
    assert len(list(image_loader(config, limit=2))) == 2
    with torch.no_grad():
        (sample,) = model.predict(*batches[1])
    found = Predictor(config, tmp_path / "a.pth", min_score=0)(sample.img_path)
    expected = sample.pred_instances
    assert found.size == (48, 80)
    assert np.array_equal(found.masks, expected.masks.numpy())
    assert np.array_equal(found.scores, expected.scores.numpy())
    assert np.array_equal(found.boxes, expected.bboxes.numpy())
    assert list(found.labels) == expected.labels.tolist()
    assert found.names == ["text"] * len(found)
    pipeline = config.test_dataloader.dataset.pipeline
    for image in (sample.img_path, read_image(sample.img_path)):
        detected = detect(model, pipeline, image)
        assert torch.equal(detected.masks, expected.masks)
        assert torch.equal(detected.scores, expected.scores)


@pytest.fixture
def predictor(config, tmp_path):
    return Predictor.from_run(tiny_knet.untrained_run(tmp_path / "run", config), min_score=0)


def same(one, other) -> bool:
    return one.size == other.size and one.rle == other.rle and np.array_equal(one.scores, other.scores)


def test_a_path_a_pillow_image_and_an_array_are_the_same_image(config, predictor, tmp_path):
    path = next((tmp_path / "labelled").rglob("*.png"))
    sideways = tmp_path / "sideways.png"
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # displayed after a quarter turn to the right
        image.save(sideways, exif=exif)
    of_path, of_sideways = predictor(path), predictor(sideways)
    assert len(of_path) == 6
    assert (of_path.size, of_sideways.size) == ((48, 80), (80, 48))
    with Image.open(sideways) as image:
        assert same(predictor(image), of_sideways)
        assert image.size == (80, 48)  # it is left as it was
    assert same(predictor(read_image(path)), of_path)
    first, second = predictor([str(path), sideways])
    assert same(first, of_path)
    assert same(second, of_sideways)


def test_objects_below_a_score_are_left_out(config, predictor, tmp_path):
    path = next((tmp_path / "labelled").rglob("*.png"))
    everything = predictor(path)
    middle = float(np.median(everything.scores))
    strict = Predictor.from_run(tmp_path / "run", tmp_path / "run" / "iter_1.pth", min_score=middle)(path)
    assert 0 < len(strict) < len(everything)
    assert same(strict, everything.at_least(middle))
    assert list(strict.scores) == sorted(strict.scores, reverse=True)


def test_the_best_checkpoint_is_taken_unless_the_last_is_asked_for(config, predictor, tmp_path):
    run = tmp_path / "run"
    weights = torch.load(run / "iter_1.pth")["state_dict"]
    torch.save({"state_dict": {name: 2 * values for name, values in weights.items()}}, run / "best_0.pth")
    write_json(run / "best.json", {"checkpoint": "best_0.pth", "epoch": 1, "metric": "AP", "score": 0.5})
    kernels = "rpn_head.init_kernels.weight"
    for settings, factor in (({}, 2), ({"last": True}, 1)):
        taken = Predictor.from_run(run, **settings).model.state_dict()[kernels]
        assert torch.equal(taken, factor * weights[kernels])


def test_masks_of_very_large_images_are_enlarged(config, predictor, tmp_path, monkeypatch):
    image = Image.open(next((tmp_path / "labelled").rglob("*.png"))).resize((320, 192))
    small = predictor(np.asarray(image.resize((160, 96), Image.Resampling.BILINEAR)))
    monkeypatch.setattr(predictor, "mask_pixels", 160 * 96)
    enlarged = predictor(np.asarray(image))
    assert enlarged.size == (192, 320)
    assert np.array_equal(enlarged.scores, small.scores)
    masks, others = small.masks.repeat(2, 1).repeat(2, 2), enlarged.masks
    assert ((masks & others).sum((1, 2)) >= 0.9 * (masks | others).sum((1, 2))).all()
    assert np.array_equal(enlarged.boxes, 2 * small.boxes)


def test_a_pretrained_run_finds_objects(write_shards, make_record, rectangles, tmp_path):
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4]])
    overrides = Overrides(cfg_options=(*tiny_knet.MODEL, *tiny_knet.TRAINING_IMAGES))
    config = pretraining_config("knet_lite0", "pretrain_demo", write_shards([[record]]), overrides=overrides)
    run = tiny_knet.untrained_run(tmp_path / "run", config)
    found = Predictor.from_run(run, min_score=0)(np.zeros((40, 60, 3), np.uint8))
    assert found.size == (40, 60)
    assert set(found.names) == {"object"}


def test_images_that_cannot_be_read_are_named(predictor, tmp_path):
    with pytest.raises(UserError, match=r"missing\.png: does not exist; repair or replace it"):
        predictor(tmp_path / "missing.png")
    with pytest.raises(UserError, match=r"float64 of shape \(4, 4\); it must be uint8 \(H, W, 3\)"):
        predictor(np.zeros((4, 4)))


def test_the_usual_side_of_images_is_that_of_the_labels(config, tmp_path):
    assert image_side(config) == 80
    (tmp_path / "labelled" / "annotations" / "test.json").unlink()
    assert image_side(config) == 128  # twice the size that the detector sees


def test_a_checkpoint_of_another_model_is_refused(config, tmp_path):
    weights = training.initial_model(config)
    weights["roi_head.mask_head.1.fc_mask.weight"] = torch.zeros(1)
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: not a checkpoint of this model"):
        load_detector(config, tmp_path / "a.pth")
