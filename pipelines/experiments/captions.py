"""What stands beside a figure's pictures, as JSON, text and Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines import steps
from pipelines.experiments import account
from pipelines.experiments.drawings import Drawing, Figure, arguments, drawings_at, figure_runs, shown_seeds
from pipelines.experiments.notes import of_seeds, scale_notes, setting_notes
from pipelines.experiments.scales import Scale
from pipelines.experiments.workspace import Workspace


def caption(figure: Figure, scale: Scale, seeds: Sequence[int], workspace: Workspace, device: str) -> dict[str, Any]:
    """What is to be said of a drawn figure in plain values; its `pictures` are beside it.

    Args:
        device: that the runs ran on.
    """
    drawings = drawings_at(figure, scale)
    notes = list(_notes(figure, drawings, scale, seeds, workspace))
    told = account.account(figure, scale, notes, figure_runs(figure, scale, seeds), workspace, device)
    told["commands"] += [steps.typed("draw", arguments(drawing, scale, seeds, workspace)) for drawing in drawings]
    return {**told, "pictures": [f"{drawing.name}.png" for drawing in drawings]}


def _notes(
    figure: Figure, drawings: Sequence[Drawing], scale: Scale, seeds: Sequence[int], workspace: Workspace
) -> Iterator[str]:
    asked, had = ([one for drawing in each for one in drawing.models.values()] for each in (figure.drawings, drawings))
    shown = shown_seeds(drawings[0], seeds)
    if len(shown) > 1:
        yield f"Lines are means over {of_seeds(had, shown)}; bands go from the lowest run to the highest."
    else:
        of_several = f", the first of {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
        yield f"One run per model, with seed {shown[0]}{of_several}: nothing is known of the spread, as in the paper."
    for printed in dict.fromkeys(one.epochs for one in had if one.epochs):
        here = next(scale.epochs(one) for one in had if one.epochs == printed)
        yield f"Fine-tuned for {here} {'epoch' if here == 1 else 'epochs'}; the paper's for {printed}."
    yield from figure.notes
    if any(drawing.kind == "results" for drawing in drawings):
        yield (
            "The images are the demo set's test images: its unlabeled ones, which it pre-trains on, show no text."
            if scale.images
            else "The images are unlabeled ones, which it pre-trains on; which the paper's are, it does not say."
        )
    yield from scale_notes(asked, scale)
    yield from setting_notes(had, scale, shown, workspace)


def write(captioned: dict[str, Any], folder: Path) -> Path:
    """Write `figureN.about.json` and `figureN.md`, beside `figureN.json` with a drawing's numbers; returns the latter.

    Raises:
        UserError: they cannot be written.
    """
    path = folder / f"figure{captioned['number']}.md"
    return account.write(captioned, as_markdown(captioned), path, ".about.json")


def as_text(captioned: dict[str, Any]) -> str:
    """For the terminal."""
    return account.as_text(_heading(captioned), captioned)


def as_markdown(captioned: dict[str, Any]) -> str:
    """With its pictures, and all that is needed to repeat it."""
    pictures = "\n\n".join(f"![{Path(name).stem}]({name})" for name in captioned["pictures"])
    return account.as_markdown(_heading(captioned), captioned, pictures)


def _heading(captioned: dict[str, Any]) -> str:
    return f"Figure {captioned['number']}, at {captioned['scale']} scale: {captioned['title']}"
