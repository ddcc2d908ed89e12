from pipelines.reporting.search import search


def test_finds_runs_shards_tables_and_figures_and_nothing_else(tmp_path, make_run):
    make_run(tmp_path / "b" / "run")
    make_run(tmp_path / "a", 2)
    for path in (
        "configs/config.py",
        "shards/manifest.json",
        "tables/1.json",
        "tables/1.md",
        "figures/1.png",
        "x.png",
        "figures/1.json",
        "figures/1.about.json",
        "x.about.json",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "a" / "tables").mkdir()
    (tmp_path / "a" / "tables" / "of_a_run.json").touch()
    found = search(tmp_path)
    assert found.runs == [tmp_path / "a", tmp_path / "b" / "run"]
    assert found.shard_sets == [tmp_path / "shards"]
    assert found.tables == [tmp_path / "tables" / "1.json"]
    assert found.pictures == [tmp_path / "figures" / "1.png"]
    assert found.abouts == [tmp_path / "figures" / "1.about.json"]
    assert not search(tmp_path / "configs").anything()
