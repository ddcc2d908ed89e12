"""Whether one way of training gives more AP than another, in words that the numbers carry."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

Scores = Mapping[int, Sequence[float]]  # AP of each seed, in [0, 1], by the number of labelled images
VERDICTS = {1: "more AP", -1: "less AP", 0: "no clear difference"}


def verdict(differences: Sequence[float]) -> int:
    """1 for more, -1 for less, 0 for no clear difference.

    A difference is clear if it has the same sign in every seed, and its mean exceeds its sample standard deviation.

    Args:
        differences: of several seeds, paired.
    """
    sign = 1 if fmean(differences) > 0 else -1
    same = all(sign * difference > 0 for difference in differences)
    return sign if same and abs(fmean(differences)) > stdev(differences) else 0


def conclude(ours: Scores, theirs: Scores, names: tuple[str, str]) -> str:
    """One sentence on two ways of training, seed by seed: where the first gives more AP, and how much.

    Args:
        ours, theirs: with the same numbers of images and of seeds, two or more for a verdict.
        names: of the two.
    """
    differences = {n: [100 * (a - b) for a, b in zip(ours[n], theirs[n], strict=True)] for n in ours}
    about = f"{names[0]} against {names[1]}"
    if min(map(len, differences.values())) < 2:
        gains = ", ".join(f"{values[0]:+.1f} AP with {n}" for n, values in differences.items())
        return f"{about}: {gains} labelled images; of one seed the spread is not known."
    places: dict[int, list[str]] = {}
    for n, values in differences.items():
        gain = f"{n} ({fmean(values):+.1f}, by seed {min(values):+.1f} to {max(values):+.1f})"
        places.setdefault(verdict(values), []).append(gain)
    found = [f"{VERDICTS[sign]} with {_listed(places[sign])}" for sign in VERDICTS if sign in places]
    return f"{about}: {'; '.join(found)} labelled images."


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))
