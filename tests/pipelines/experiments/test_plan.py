"""The runs of a table: real commands, shared wherever they are the same."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.experiments import plan
from pipelines.experiments.execute import Workspace
from pipelines.experiments.paper_tables import SP, TABLES
from pipelines.experiments.plan import (
    Output,
    Run,
    data_run,
    finetuning_run,
    in_order,
    pretraining_run,
    shards_run,
)
from pipelines.experiments.scales import DEMO, PAPER, SCALES, FineTuning, Pretraining, Scale
from pipelines.experiments.tables import rows_at, table_runs
from tests.pipelines.command import parse

EVERYWHERE = Workspace(Path("experiments"), "cpu", 2, 3)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_command_is_one_that_its_parser_takes(scale: Scale) -> None:
    runs = in_order(run for number in TABLES for run in table_runs(TABLES[number], scale, [0, 1]))
    assert {run.command for run in runs} == {"data", "proposals", "pretrain", "finetune", "evaluate"}
    for run in runs:
        settings = parse(run.command, *EVERYWHERE.arguments(run))
        if run.command in ("pretrain", "finetune"):
            assert (settings["device"], settings["gpus"], settings["batch_size"]) == ("cpu", 2, 3)
            assert settings["work_dir"] == str(EVERYWHERE.directory(run))
            assert f"seed{settings['seed']}" in run.name


def test_data_is_prepared_by_the_paper_s_names_or_made() -> None:
    made, real = data_run("ctw1500", DEMO), data_run("ctw1500", PAPER)
    settings = parse("data", *EVERYWHERE.arguments(made))
    assert (settings["count"], settings["data_root"]) == ((480, 60, 60), EVERYWHERE.directory(made))
    assert EVERYWHERE.arguments(real) == ["--dataset", "ctw1500"]


def test_a_pre_trained_model_is_judged_by_all_objects_of_the_demo_set_or_the_papers_labels() -> None:
    run, of_paper = (table_runs(TABLES[6], scale, [0])[-1] for scale in (DEMO, PAPER))
    pretrained, objects = pretraining_run(SP, DEMO, 0), EVERYWHERE.directory(data_run("coco10", DEMO)) / "objects"
    labels = str(objects / "annotations.json")
    assert EVERYWHERE.arguments(run) == [
        *("--work-dir", str(EVERYWHERE.directory(pretrained)), "--class-agnostic"),
        *("--dataset", labels, "--test-labels", labels),
        *("--out", f"{EVERYWHERE.directory(run)}/scores.json", "--device", "cpu"),
    ]
    assert of_paper.arguments[-2:] == ("--dataset", "coco10")
    assert of_paper.after == (data_run("coco10", PAPER),)


def test_tables_share_their_runs() -> None:
    runs = {number: set(table_runs(table, DEMO, [0])) for number, table in TABLES.items()}
    method = finetuning_run(FineTuning("knet", "coco10", SP), DEMO, 0)
    assert all(method in runs[number] for number in (1, 2, 4, 5, 7))
    assert pretraining_run(SP, DEMO, 0) in runs[6]
    plain = finetuning_run(FineTuning("knet", "coco10", Pretraining(prompts=False)), DEMO, 0)
    assert plain in runs[5] & runs[7]
    trained = [
        run for run in set().union(*(runs[n] for n in (2, 3, 4, 5, 7))) if run.command in ("pretrain", "finetune")
    ]
    assert sum(run.command == "pretrain" for run in trained) == 11
    assert sum(run.command == "finetune" for run in trained) == 16


def test_data_sets_share_a_pre_training_at_paper_scale() -> None:
    runs = table_runs(TABLES[2], PAPER, [0])
    assert [run.command for run in runs].count("pretrain") == 1
    assert [run.command for run in runs].count("finetune") == 14


def test_what_is_needed_comes_first() -> None:
    for scale in SCALES.values():
        for table in TABLES.values():
            runs = table_runs(table, scale, [3, 1])
            assert len(set(runs)) == len(runs)
            assert len({run.name for run in runs}) == len(runs)
            for index, run in enumerate(runs):
                assert set(run.dependencies) <= set(runs[:index])


def test_the_first_seed_is_done_before_the_second() -> None:
    seeds = [run.label[-1] for run in table_runs(TABLES[7], DEMO, [0, 1]) if "seed" in run.label]
    assert seeds == sorted(seeds)


def test_a_name_changes_with_the_settings_and_with_nothing_else() -> None:
    run = finetuning_run(FineTuning("knet", "coco10", SP), DEMO, 0)
    assert run.name == finetuning_run(FineTuning("knet", "ctw1500", SP), DEMO, 0).name  # the demo set is both
    others = [
        finetuning_run(FineTuning("knet", "coco10", SP), DEMO, 1),
        finetuning_run(FineTuning("knet", "coco10", "imagenet"), DEMO, 0),
        finetuning_run(FineTuning("knet", "coco5", SP), DEMO, 0),
        finetuning_run(FineTuning("queryinst", "coco10", SP), DEMO, 0),
        finetuning_run(FineTuning("knet", "coco10", SP), replace(DEMO, pretrain_epochs=9), 0),  # inherited
        finetuning_run(FineTuning("knet", "coco10", SP), replace(DEMO, images=(9, 60, 60)), 0),
    ]
    assert len({run.name, *(other.name for other in others)}) == 7
    assert run.name == "finetune-demo60-knet_lite0-saliency-seed0-" + run.name[-6:]
    assert finetuning_run(FineTuning("knet", "ctw1500", "swav"), PAPER, 2).name.startswith(
        "finetune-ctw1500-knet-swav-seed2-"
    )


def test_the_seed_goes_to_pre_training_to_fine_tuning_and_to_random_masks() -> None:
    run = finetuning_run(FineTuning("knet", "coco10", Pretraining(masks="random")), DEMO, 7)
    pretrained, shards = run.dependencies[0], run.dependencies[0].dependencies[0]
    for one in (run, pretrained):
        assert one.arguments[-2:] == ("--seed", "7")
    assert shards.arguments[-2:] == ("--set", "seed=7")
    assert shards_run("saliency", DEMO, 7) == shards_run("saliency", DEMO, 0)
    assert data_run("coco10", DEMO).arguments == ("--dataset", "demo", "--count", "480", "60", "60")


def test_without_prompts_is_the_option_of_the_ablations() -> None:
    run = finetuning_run(FineTuning("knet", "coco10", Pretraining(prompts=False)), PAPER, 0)
    assert run.arguments[4:7] == ("--init", "pseudo", "--checkpoint")
    assert " --prompts off" in " ".join(EVERYWHERE.arguments(run.dependencies[1]))


def test_the_ablations_are_those_of_their_page() -> None:
    """docs/ablations.md: options of a pre-training, and the number that it leads to."""
    page = (Path(__file__).parents[3] / "docs" / "ablations.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(make pretrain MODEL=knet [^`]*)` \| (\d+\.\d) \|", page)
    on_page = set()
    for command, number in commands:
        words = dict(word.split("=", 1) for word in shlex.split(command)[2:])
        masks = words["SHARDS"].removeprefix("shards-").replace("densecl", "saliency")
        options = words.get("OPTS", "").removeprefix("--saliency-prompt").split()
        on_page.add((masks, words.get("PROMPTS") != "off", tuple(options), float(number)))
    ours = set()
    for row in (row for number in (4, 5, 7) for row in TABLES[number].rows):
        assert isinstance(row.target, FineTuning)
        start = row.target.init
        assert isinstance(start, Pretraining)
        ours.add((start.masks, start.prompts, start.options, row.paper[0]))
    assert ours == on_page


def test_half_of_the_demo_set_stands_for_half_of_the_labels() -> None:
    assert data_run("coco5", DEMO).arguments[-3:] == ("1", "30", "60")
    assert data_run("coco5", replace(DEMO, images=(4, 1, 2))).arguments[-3:] == ("1", "1", "2")


def test_freesolos_masks_are_imported_where_they_are_given() -> None:
    assert "freemask" in shards_run("freesolo", PAPER, 0).arguments
    imported = shards_run("freesolo", replace(PAPER, freesolo="masks.json"), 0).arguments
    assert imported[-4:] == ("--generator", "import", "--set", 'file="masks.json"')


def test_epochs_are_the_rows_the_data_sets_or_fewer() -> None:
    assert PAPER.finetuning_epochs(80) == 80
    assert PAPER.finetuning_epochs(None) is None
    assert DEMO.finetuning_epochs(80) == DEMO.finetune_epochs
    assert DEMO.finetuning_epochs(2) == 2


def test_what_a_scale_lacks_is_left_out_and_what_is_the_papers_alone_is_kept() -> None:
    assert [row.names for row in rows_at(TABLES[2], DEMO)] == [
        ("CTW1500", "Mask R-CNN", "Img. Sup."),
        ("CTW1500", "SOLOv2", "Img. Sup."),
        ("CTW1500", "K-Net", "Img. Sup."),
        ("CTW1500", "K-Net", "SP"),
    ]
    assert len(rows_at(TABLES[6], DEMO)) == 4
    assert all(rows_at(table, PAPER) == list(table.rows) for table in TABLES.values())


def test_machines_change_commands_and_no_names() -> None:
    run = Run("pretrain", "x", ("--shards", Output(Run("proposals", "y", (), "--shards"), "z")))
    plain = Workspace(Path("w"))
    assert plain.arguments(run) == [
        "--shards",
        f"w/runs/{run.dependencies[0].name}/z",
        "--work-dir",
        f"w/runs/{run.name}",
    ]
    assert Workspace(Path("w"), "cuda", 8, 4).arguments(run)[4:] == [
        *("--device", "cuda", "--gpus", "8", "--batch-size", "4")
    ]


@pytest.mark.parametrize("file", ["models/knet_lite0.py", "models/parts/resnet50.py", "datasets/demo.py", "runtime.py"])
def test_a_changed_config_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(plan.CONFIGS, configs)
    target = FineTuning("knet", "coco10", SP)
    name, shards = finetuning_run(target, DEMO, 0).name, shards_run("saliency", DEMO, 0).name
    with (configs / file).open("a") as fragment:
        fragment.write("\nfind_unused_parameters = True\n")
    monkeypatch.setattr(plan, "CONFIGS", configs)
    assert finetuning_run(target, DEMO, 0).name != name
    assert shards_run("saliency", DEMO, 0).name == shards


def test_the_settings_of_a_generator_are_in_the_name_of_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(plan.CONFIGS, configs)
    saliency, random = (shards_run(masks, DEMO, 0).name for masks in ("saliency", "random"))
    path = configs / "proposals/saliency.toml"
    path.write_text(f"seed = 8\n{path.read_text()}")
    monkeypatch.setattr(plan, "CONFIGS", configs)
    assert shards_run("saliency", DEMO, 0).name != saliency
    assert shards_run("random", DEMO, 0).name == random
