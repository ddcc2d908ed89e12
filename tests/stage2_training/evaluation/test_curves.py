import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from stage2_training.evaluation.curves import mean_curve, plot_curves


def test_draws_every_curve(tmp_path):
    curves = {"sp": [{"epoch": 1, "AP": 0.1}, {"epoch": 2, "AP": 0.3}], "imagenet": [{"epoch": 2, "AP": 0.2}]}
    plot_curves(curves, tmp_path / "two.png")
    plot_curves({"sp": curves["sp"]}, tmp_path / "one.png")
    two, one = (np.asarray(Image.open(tmp_path / name)) for name in ("two.png", "one.png"))
    assert two.shape == one.shape
    assert (two != one).any()


def test_seeds_are_averaged_over_the_epochs_that_all_have():
    seeds = [{1: 0.1, 2: 0.2, 4: 0.4}, {2: 0.3, 1: 0.2}, {1: 0.6, 2: 0.1, 3: 0.3}]
    curves = [[{"epoch": epoch, "AP50": value, "AP": 9} for epoch, value in seed.items()] for seed in seeds]
    first, second = mean_curve(curves, "AP50")
    assert first == {"epoch": 1, "AP50": pytest.approx(0.3), "lowest": 0.1, "highest": 0.6}
    assert second == {"epoch": 2, "AP50": pytest.approx(0.2), "lowest": 0.1, "highest": 0.3}
    assert mean_curve([curves[0], []], "AP50") == []


def test_a_band_is_drawn_around_a_mean(tmp_path):
    points = [{"epoch": 1, "AP": 0.1}, {"epoch": 2, "AP": 0.3}]
    plot_curves({"a": points}, tmp_path / "line.png")
    plot_curves({"a": [point | {"lowest": 0.05, "highest": 0.35} for point in points]}, tmp_path / "band.png")
    line, band = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("line.png", "band.png"))
    tinted = [((rgb[..., 2] > rgb[..., 0]) & (rgb[..., 0] < 240)).sum() for rgb in (line, band)]  # blue
    assert tinted[1] > 5 * tinted[0]


@pytest.mark.parametrize("epochs", [[1], [12], [1, 2], [5, 10], [*range(1, 49)]])
def test_the_axis_has_whole_epochs_only(epochs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_curves({"a": [{"epoch": epoch, "AP": 0.1} for epoch in epochs]}, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) for tick in ticks)


def test_names_may_contain_dollar_signs(tmp_path):
    plot_curves({r"a $\nothing$ b": [{"epoch": 1, "AP": 0.2}]}, tmp_path / "curve.png", title=r"$\nothing$")
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_scores_by_another_number_have_an_axis_of_its_values(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    curves = {"a": [{"images": count, "AP": 0.1} for count in (10, 20, 60)], "b": [{"images": 40, "AP": 0.2}]}
    plot_curves(curves, tmp_path / "a.png", over="images", dashed=["b"])
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "images")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "40", "60"]
    assert [line.get_linestyle() for line in axes.get_lines()] == ["-", "--"]
