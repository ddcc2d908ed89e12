import json

import numpy as np
import pytest
from PIL import Image
from pipelines.reporting.figures import read_figures
from pipelines.reporting.notes import Notes
from pipelines.reporting.pictures import Album

ABOUT = {
    "title": "AP",
    "number": 4,
    "scale": "demo",
    "pictures": ["b.png", "a.png", "../secret.png"],
    "notes": ["One run."],
    "runs": ["runs/a"],
    "commands": ["python -m pipelines.draw"],
    "machine": "two cores",
    "seconds": 60,
}


@pytest.fixture
def read(tmp_path):
    """(JSON of figures by name) -> the figures of pictures a, b and c, and the notes."""

    def read(**abouts):
        folder = tmp_path / "scale" / "figures"
        folder.mkdir(parents=True)
        pictures = [folder / f"{name}.png" for name in "abc"]
        for path in (*pictures, folder.parent / "secret.png"):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
        paths = [folder / f"{name}.about.json" for name in abouts]
        for path, about in zip(paths, abouts.values(), strict=True):
            path.write_text(json.dumps(about))
        notes = Notes(tmp_path)
        return read_figures(paths, pictures, notes, Album(notes)), notes.lines

    return read


def names(figures):
    return [(figure.about.title, [picture.name for picture in figure.pictures]) for figure in figures]


def test_pictures_are_under_what_is_said_of_them_and_others_under_their_names(read):
    figures, notes = read(figure4=ABOUT)
    assert notes == []
    assert names(figures) == [
        ("Figure 4: AP (demo scale)", ["scale/figures/a.png", "scale/figures/b.png"]),
        ("scale/figures/c.png", ["scale/figures/c.png"]),
    ]
    about = figures[0].about
    assert about.notes == ["One run.", "Took 60 s.", "Made on two cores."]
    assert (about.commands, about.runs) == (["python -m pipelines.draw"], ["scale/runs/a"])
    assert all(picture.data for figure in figures for picture in figure.pictures)


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        ({"pictures": None}, "a list is missing"),
        ({"notes": 3}, "a list is missing"),
        ({"pictures": ["gone.png", "../secret.png"]}, "its pictures have gone"),
    ],
)
def test_what_is_no_figure_is_noted_and_its_pictures_are_shown(read, damage, note):
    figures, notes = read(figure4=ABOUT | damage)
    assert [len(figure.pictures) for figure in figures] == [1, 1, 1]
    assert notes[0].startswith("scale/figures/figure4.about.json: ")
    assert len(notes) == 1
    assert note in notes[0]
