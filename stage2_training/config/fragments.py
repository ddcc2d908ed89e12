"""Where the base configs are by which models, datasets and schedules are named. Needs no MMEngine, which loads slowly.

`compose.py` reads them.
"""

from pathlib import Path

from stage1_proposals.common.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def fragment_file(group: str, name: str) -> Path:
    """Where a fragment is: `configs/<group>/<name>.py`, or the file `name` when it ends in `.py`."""
    return Path(name) if name.endswith(".py") else CONFIGS / group / f"{name}.py"


def find_fragment(group: str, name: str) -> Path:
    """The `fragment_file` that is there.

    Raises:
        UserError: there is no such fragment; the message lists those that exist.
    """
    path = fragment_file(group, name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONFIGS / group).glob("*.py")))
        labels = ", COCO JSON, a folder of labelme files or a YOLO set's data.yaml" if group == "datasets" else ""
        raise UserError(
            f"no {group.removesuffix('s')} {name!r}: pass one of {known}, or the path of a config file{labels}"
        )
    return path


def check_fragments(**names: str | None) -> None:
    """Check that fragments exist, given by their groups; None: none of this group is named.

    Raises:
        UserError: as `find_fragment`.
    """
    for group, name in names.items():
        if name is not None:
            find_fragment(group, name)
