"""COCO's scores: their names, and the scores as text. Imports nothing, for commands that print them."""

from collections.abc import Mapping, Sequence

METRIC = "coco"
LOGGED = f"{METRIC}/"  # what logs put before these names
AP_NAMES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
RECALL = "AR@20"  # of class-agnostic evaluation alone
PREFIXES = {"mask": "", "box": "box_"}
PLURALS = {"mask": "masks", "box": "boxes"}
SCORE_NAMES = tuple(prefix + name for prefix in PREFIXES.values() for name in AP_NAMES)


def format_scores(scores: Mapping[str, float]) -> str:
    """A line of names, and one each for masks and boxes in percent; `-` where there are no objects of that size.

    Runs made before boxes were evaluated have no line for them.
    """
    names = [name for name in (*AP_NAMES, RECALL) if name in scores]
    rows = [("", names)]
    rows += [
        (PLURALS[kind], percents(scores, names, prefix))
        for kind, prefix in PREFIXES.items()
        if prefix + names[0] in scores
    ]
    return "\n".join(label.ljust(5) + "".join(cell.rjust(7) for cell in cells) for label, cells in rows)


def percents(scores: Mapping[str, float], names: Sequence[str], prefix: str = "") -> list[str]:
    """Scores in percent; `-` where there are no objects of that size."""
    values = [scores[prefix + name] for name in names]
    return ["-" if value < 0 else f"{100 * value:.1f}" for value in values]
