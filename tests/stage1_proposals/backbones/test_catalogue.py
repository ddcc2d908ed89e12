"""The names a backbone can have."""

import subprocess
import sys
from pathlib import Path

import pytest

from stage1_proposals.backbones.catalogue import CATALOGUE, architecture_of
from stage1_proposals.common.errors import UserError

ROOT = Path(__file__).parents[3]


def test_the_hashes_stand_in_the_file_names() -> None:
    for entry in CATALOGUE.values():
        if entry.url is not None:
            assert entry.sha256_prefix is not None
            assert entry.url.endswith(f"-{entry.sha256_prefix}.pth")


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("densecl_r50", "resnet50"),
        ("lite0_imagenet", "tf_efficientnet_lite0"),
        ("resnet18", "resnet18"),
        ("vit_small_patch16_224.dino", "vit_small_patch16_224.dino"),
    ],
)
def test_a_name_is_the_catalogues_or_timms(name: str, architecture: str) -> None:
    assert architecture_of(name) == architecture


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qqq", r"no backbone 'qqq'; there are lite0_imagenet, dinov2_s, densecl_r50, .*; or any model of timm's$"),
        ("resnet49", r"no backbone 'resnet49'; .* timm's models with similar names are .*resnet34"),
        ("resnet18.dino", r"no backbone 'resnet18.dino'; timm has resnet18\.a1_in1k, "),
        ("resnet18.", r"no backbone 'resnet18\.'; timm has resnet18\.a1_in1k, "),
        ("dla34.", r"no backbone 'dla34\.'; timm has dla34\.in1k$"),
        ("", r"no backbone ''; there are"),
        ("hf-hub:timm/resnet18.a1_in1k", "no backbone 'hf-hub:timm/"),
        ("local-dir:/tmp", "no backbone 'local-dir:/tmp'"),
    ],
)
def test_another_name_is_refused_with_those_like_it(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        architecture_of(name)


def test_the_names_are_known_before_anything_heavy_is_imported() -> None:
    code = "import sys, pipelines.proposals; print({'torch', 'torchvision', 'timm', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
