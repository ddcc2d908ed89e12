"""Names of backbones: the catalogue's, with their public weights, and timm's.

Imports nothing heavy, so that a command can list the names quickly.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from stage1_proposals.common.errors import UserError

_MMSELFSUP = "https://download.openmmlab.com/mmselfsup/1.x"
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class CatalogueEntry:
    """A backbone with public weights.

    Attributes:
        architecture: timm's name; timm's ResNets have torchvision's layer names.
        mean, std: input normalisation of these weights, in units of 0-255 RGB.
        url: public file; None for weights inside an installed package.
        sha256_prefix: first digits of that file's SHA-256.
    """

    architecture: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    url: str | None = None
    sha256_prefix: str | None = None


def _resnet50(url: str, sha256_prefix: str) -> CatalogueEntry:
    return CatalogueEntry("resnet50", _IMAGENET_MEAN, _IMAGENET_STD, url, sha256_prefix)


CATALOGUE: dict[str, CatalogueEntry] = {
    "lite0_imagenet": CatalogueEntry("tf_efficientnet_lite0", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "dinov2_s": CatalogueEntry("vit_small_patch14_dinov2", _IMAGENET_MEAN, _IMAGENET_STD),
    "densecl_r50": _resnet50(
        f"{_MMSELFSUP}/densecl/densecl_resnet50_8xb32-coslr-200e_in1k/"
        "densecl_resnet50_8xb32-coslr-200e_in1k_20220825-3078723b.pth",
        "3078723b",
    ),
    "swav_r50": _resnet50(
        f"{_MMSELFSUP}/swav/swav_resnet50_8xb32-mcrop-2-6-coslr-200e_in1k-224-96/"
        "swav_resnet50_8xb32-mcrop-2-6-coslr-200e_in1k-224-96_20220825-5b3fc7fc.pth",
        "5b3fc7fc",
    ),
    "mocov2_r50": _resnet50(
        f"{_MMSELFSUP}/mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k/"
        "mocov2_resnet50_8xb32-coslr-200e_in1k_20220825-b6d23c86.pth",
        "b6d23c86",
    ),
    "imagenet_r50": _resnet50("https://download.pytorch.org/models/resnet50-0676ba61.pth", "0676ba61"),
}


def architecture_of(name: str) -> str:
    """Return timm's name of a backbone's architecture; a name of timm's, including its tag, is returned as it is.

    Raises:
        UserError: neither the catalogue nor timm has such a name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name].architecture
    import timm  # takes seconds: only for names that the catalogue lacks

    if not timm.is_model(name):
        similar = get_close_matches(name, timm.list_models(), n=3)
        hint = f"timm's models with similar names are {', '.join(similar)}" if similar else "or any model of timm's"
        raise UserError(f"no backbone {name!r}; there are {', '.join(CATALOGUE)}; {hint}")
    base_name = name.partition(".")[0]
    tagged = timm.list_pretrained(f"{base_name}.*")
    if "." in name and name not in tagged:
        raise UserError(f"no backbone {name!r}; timm has {', '.join(tagged) or base_name}")
    return name
