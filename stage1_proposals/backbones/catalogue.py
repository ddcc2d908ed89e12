"""The names a backbone can have: those of the catalogue, with their public files, and timm's.

Imports nothing heavy, so that a command can list the names before it loads anything.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from stage1_proposals.common.errors import UserError

_MMSELFSUP = "https://download.openmmlab.com/mmselfsup/1.x"
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class CatalogueEntry:
    """A backbone that is known with its weights.

    Attributes:
        architecture: timm's name of it; timm's ResNets have torchvision's layer names.
        mean, std: input normalisation of these weights, in units of 0-255 RGB.
        url: public file, or None for weights inside an installed package.
        sha256_prefix: head of that file's SHA-256.
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
    """timm's name of the architecture behind a name of the catalogue; a name of timm's, tag and all, is its own.

    Raises:
        UserError: neither the catalogue nor timm has such a name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name].architecture
    import timm  # seconds: only where a name is not the catalogue's

    if not timm.is_model(name):
        alike = get_close_matches(name, timm.list_models(), n=3)
        of_timm = f"of timm's models, {', '.join(alike)} have names like it" if alike else "or any model of timm's"
        raise UserError(f"no backbone {name!r}; there are {', '.join(CATALOGUE)}; {of_timm}")
    tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    if "." in name and name not in tagged:
        raise UserError(f"no backbone {name!r}; timm has {', '.join(tagged) or name.partition('.')[0]}")
    return name
