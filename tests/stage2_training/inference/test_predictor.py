import pytest
import torch

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device
from stage1_proposals.images.decode import read_image
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.inference.predictor import detect, image_loader, load_detector, preprocess
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
    dataset = config.test_dataloader.dataset
    found = detect(model, dataset.pipeline, sample.img_path)
    assert found.masks.shape[1:] == (48, 80)
    assert torch.equal(found.masks, sample.pred_instances.masks)
    assert torch.equal(found.scores, sample.pred_instances.scores)
    of_pixels = detect(model, dataset.pipeline, read_image(sample.img_path))
    assert torch.equal(of_pixels.masks, found.masks)
    assert torch.equal(of_pixels.scores, found.scores)


def test_a_checkpoint_of_another_model_is_refused(config, tmp_path):
    weights = training.initial_model(config)
    weights["roi_head.mask_head.1.fc_mask.weight"] = torch.zeros(1)
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: not a checkpoint of this model"):
        load_detector(config, tmp_path / "a.pth")
