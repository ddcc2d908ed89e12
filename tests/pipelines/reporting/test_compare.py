import statistics

import pytest
from pipelines.reporting.compare import Comparison, Seeds, name_together, short_names
from pipelines.reporting.notes import Notes
from pipelines.reporting.runs import read_run


@pytest.fixture
def compared(tmp_path, make_run):
    """(name to settings) -> the comparison of such runs, and the runs by name."""

    def compare(runs):
        made = {}
        for name, settings in runs.items():
            notes = Notes(tmp_path)
            made[name] = read_run(make_run(tmp_path / name, **settings), notes)
            assert notes.lines == []
        return Comparison(list(made.values())), made

    return compare


def names(groups):
    return [[run.name for run in each.runs] for each in groups]


def test_seeds_belong_together_and_other_settings_do_not(compared):
    comparison, runs = compared({"a0": {}, "a1": {"seed": 1}, "b0": {"lr": 0.2}, "c": {"init": "imagenet"}})
    assert names(comparison.seeds(runs.values())) == [["a0", "a1"], ["b0"], ["c"]]


def test_initial_weights_count_by_the_settings_of_the_run_they_are_from(compared, tmp_path):
    parent = tmp_path.name
    comparison, runs = compared(
        {
            "p0": {"pretraining": True},
            "p1": {"pretraining": True, "seed": 1},
            "q0": {"pretraining": True, "lr": 0.3},
            "f0": {"weights": f"{parent}/p0/iter_1.pth"},
            "f1": {"weights": f"{parent}/p1/iter_1.pth", "seed": 1},
            "g0": {"weights": f"{parent}/q0/iter_1.pth"},
        }
    )
    assert comparison.parent(runs["f1"]) is runs["p1"]
    assert comparison.parent(runs["p0"]) is None
    assert names(comparison.seeds([runs["f0"], runs["f1"], runs["g0"]])) == [["f0", "f1"], ["g0"]]


def test_parents_are_found_by_absolute_paths_and_circles_end(compared, tmp_path):
    comparison, runs = compared(
        {"a": {"weights": tmp_path / "b" / "iter_1.pth"}, "b": {"weights": tmp_path / "a" / "iter_1.pth"}}
    )
    assert comparison.parent(runs["a"]) is runs["b"]
    assert len(comparison.seeds(runs.values())) == 2


def test_runs_of_several_seeds_are_called_what_only_they_are_called(compared):
    comparison, runs = compared(
        {
            "sp-seed0-0a1b2c": {},
            "sp-seed1-3d4e5f": {"seed": 1},
            "x/seed0": {"lr": 0.2},
            "x/seed1": {"lr": 0.2, "seed": 1},
        }
    )
    assert [each.name for each in comparison.seeds(runs.values())] == ["sp", "seed{0,1}"]
    comparison, runs = compared(
        {
            "y/sp-seed0-0a1b2c": {},
            "y/sp-seed1-3d4e5f": {"seed": 1},
            "y/sp-seed0-6a7b8c": {"lr": 0.2},  # before its settings were changed
            "y/knet-seed0": {"lr": 0.3},
            "y/knet": {"lr": 0.3, "seed": 1},
        }
    )
    names = [each.name for each in comparison.seeds(runs.values())]
    assert names == ["knet", "sp-seed{0-0a1b2c,1-3d4e5f}", "sp-seed0-6a7b8c"]


def test_differences_are_those_among_alike_runs(compared):
    comparison, runs = compared(
        {"a": {}, "b": {"channels": 16, "seed": 3}, "c": {"channels": 4}, "other": {"dataset": "x", "lr": 9}}
    )
    assert comparison.differences(runs["a"]) == {
        "model.head.channels": ("8", ["16", "4"]),
        "randomness.seed": ("0", ["3"]),
    }
    assert comparison.differences(runs["other"]) == {}


def test_means_are_those_of_finished_runs(compared):
    comparison, runs = compared(
        {f"s{seed}": {"seed": seed, "scores": {"AP": ap}} for seed, ap in enumerate((0.1, 0.2, 0.4))}
        | {"half": {"seed": 3, "epochs": 2}}
    )
    (seeds,) = comparison.seeds(runs.values())
    assert len(seeds.runs) == 4
    assert seeds.mean("AP") == pytest.approx((0.7 / 3, statistics.stdev((0.1, 0.2, 0.4))))
    assert seeds.mean("AP50") is None


def test_a_band_has_the_points_that_all_have_that_reach_so_far():
    lines = [[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)], [(2, 4.0), (4, 0.0)], []]
    assert Seeds((), "").band(lines) == [(1, 1, 1, 1), (2, 3, 2, 4), (4, 2, 0, 4)]


def test_names_are_as_short_as_they_may_be():
    paths = ["a/runs/x", "b/runs/x", "b/y", "z", "x"]
    assert list(short_names(paths).values()) == ["a/runs/x", "b/runs/x", "y", "z", "x"]


def test_names_of_seeds_together():
    assert name_together(["runs/knet-seed0-a", "runs/knet-seed1-a"]) == "runs/knet-seed{0,1}-a"
    assert name_together(["aa", "a"]) == "a{a,}"
    assert name_together(["x" * 50, "y" * 50, "z"]) == "x" * 50 + " and 2 more"
    assert name_together(["one"]) == "one"
