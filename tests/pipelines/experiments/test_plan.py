"""The runs of a table: real commands, shared wherever they are the same."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.experiments import plan as planning
from pipelines.experiments.paper import TABLES, Row
from pipelines.experiments.plan import Plan, Run, in_order
from pipelines.experiments.scales import DEMO, PAPER, SCALES, Scale, demo_datasets
from tests.pipelines.command import parse

ROOT = Path("experiments")
ON_DEMO, ON_PAPER = (Plan(scale, ROOT, "cpu", 2, 3) for scale in (DEMO, PAPER))
METHOD = Row("knet", "coco10", "sp", "saliency")
PLAIN = Row("knet", "coco10", "pseudo", "saliency")
CTW1500 = replace(METHOD, dataset="ctw1500")


def command(run: Run) -> str:
    return run.words[0]


def needed(run: Run, name: str) -> Run:
    """The run of a command that a run needs."""
    (found,) = (other for other in run.after if command(other) == name)
    return found


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_command_is_one_that_its_parser_takes(scale: Scale) -> None:
    plan = Plan(scale, ROOT, "cpu", 2, 3)
    runs = in_order(run for table in TABLES.values() for run in plan.runs(table, [0, 1]))
    assert {command(run) for run in runs} == {"data", "proposals", "pretrain", "finetune", "evaluate"}
    for run in runs:
        settings = parse(*run.words)
        if command(run) in ("pretrain", "finetune"):
            assert (settings["device"], settings["gpus"], settings["batch_size"]) == ("cpu", 2, 3)
            assert settings["work_dir"] == str(run.directory)
            assert f"seed{settings['seed']}" in run.name


def test_data_is_prepared_by_the_paper_s_names_or_made() -> None:
    made, real = ON_DEMO.data("ctw1500"), ON_PAPER.data("ctw1500")
    settings = parse(*made.words)
    assert (settings["count"], settings["data_root"]) == ((480, 60, 60), made.directory)
    assert real.words == ("data", "--dataset", "ctw1500")


def test_a_pre_trained_model_is_judged_by_all_objects_of_the_demo_set_or_the_papers_labels() -> None:
    run, of_paper = (plan.runs(TABLES[6], [0])[-1] for plan in (ON_DEMO, ON_PAPER))
    pretrained, objects = ON_DEMO.pretraining(METHOD, 0), ON_DEMO.data("coco10").directory / "objects"
    labels = str(objects / "annotations.json")
    assert run.words == (
        *("evaluate", "--work-dir", str(pretrained.directory), "--class-agnostic"),
        *("--dataset", labels, "--test-labels", labels),
        *("--out", f"{run.directory}/scores.json", "--device", "cpu"),
    )
    assert of_paper.words[4:6] == ("--dataset", "coco10")
    assert needed(of_paper, "data") == ON_PAPER.data("coco10")


def test_freesolo_is_trained_on_free_masks_and_then_on_its_own() -> None:
    run = ON_DEMO.run(TABLES[6].rows[0], 3)
    assert command(run) == "evaluate"
    second = needed(run, "pretrain")
    masks = needed(second, "proposals")
    first = needed(masks, "pretrain")
    assert needed(first, "proposals") == ON_DEMO.shards("freemask", 3) == ON_DEMO.shards("freemask", 0)
    settings = parse(*masks.words)
    assert (settings["generator"], settings["checkpoint"]) == ("checkpoint", str(first.directory))
    assert settings["changes"] == ("min_score=0.3",)
    assert settings["images"] == parse(*needed(first, "proposals").words)["images"]
    for pretrained, made in ((second, masks), (first, needed(first, "proposals"))):
        words = parse(*pretrained.words)
        assert (words["model"], words["seed"], words["shards"]) == ("solov2_lite0", 3, made.directory)
    assert masks.name.startswith(f"shards-checkpoint-of-{first.name}-")


def test_tables_share_their_runs() -> None:
    runs = {number: set(ON_DEMO.runs(table, [0])) for number, table in TABLES.items()}
    method = ON_DEMO.finetuning(METHOD, 0)
    assert all(method in runs[number] for number in (1, 2, 4, 5, 7))
    assert ON_DEMO.pretraining(METHOD, 0) in runs[6]
    assert ON_DEMO.finetuning(PLAIN, 0) in runs[5] & runs[7]
    trained = set().union(*(runs[n] for n in (2, 3, 4, 5, 7)))
    assert sum(command(run) == "pretrain" for run in trained) == 11
    assert sum(command(run) == "finetune" for run in trained) == 16


def test_data_sets_share_a_pre_training_at_paper_scale() -> None:
    runs = ON_PAPER.runs(TABLES[2], [0])
    assert [command(run) for run in runs].count("pretrain") == 1
    assert [command(run) for run in runs].count("finetune") == 14


def test_what_is_needed_comes_first() -> None:
    for plan in (ON_DEMO, ON_PAPER):
        for table in TABLES.values():
            runs = plan.runs(table, [3, 1])
            assert len(set(runs)) == len(runs)
            assert len({run.name for run in runs}) == len(runs)
            for index, run in enumerate(runs):
                assert set(run.after) <= set(runs[:index])


def test_the_first_seed_is_done_before_the_second() -> None:
    seeds = [found[1] for run in ON_DEMO.runs(TABLES[7], [0, 1]) if (found := re.search(r"-seed(\d)-", run.name))]
    assert seeds == sorted(seeds)
    assert {*seeds} == {"0", "1"}


def test_a_name_changes_with_the_settings_and_with_nothing_else() -> None:
    run = ON_DEMO.finetuning(METHOD, 0)
    assert run.name == ON_DEMO.finetuning(CTW1500, 0).name  # the demo set is both
    others = [
        ON_DEMO.finetuning(METHOD, 1),
        ON_DEMO.finetuning(Row("knet", "coco10", "imagenet"), 0),
        ON_DEMO.finetuning(replace(METHOD, dataset="coco5"), 0),
        ON_DEMO.finetuning(replace(METHOD, model="queryinst"), 0),
        Plan(replace(DEMO, pretrain_epochs=9), ROOT).finetuning(METHOD, 0),  # inherited
        Plan(replace(DEMO, datasets=demo_datasets(9, 60, 60)), ROOT).finetuning(METHOD, 0),
    ]
    assert len({run.name, *(other.name for other in others)}) == 7
    assert run.name == "finetune-demo60-knet_lite0-saliency-seed0-" + run.name[-6:]
    assert ON_PAPER.finetuning(Row("knet", "ctw1500", "swav"), 2).name.startswith("finetune-ctw1500-knet-swav-seed2-")
    assert run.name == Plan(DEMO, Path("elsewhere")).finetuning(METHOD, 0).name


def test_the_seed_goes_to_pre_training_to_fine_tuning_and_to_random_masks() -> None:
    run = ON_DEMO.finetuning(replace(METHOD, masks="random"), 7)
    pretrained = needed(run, "pretrain")
    for one in (run, pretrained):
        assert parse(*one.words)["seed"] == 7
    assert " --set seed=7 " in " ".join(needed(pretrained, "proposals").words)
    assert ON_DEMO.shards("saliency", 7) == ON_DEMO.shards("saliency", 0)
    assert ON_DEMO.data("coco10").words[:6] == ("data", "--dataset", "demo", "--count", "480", "60")


def test_without_prompts_is_the_option_of_the_ablations() -> None:
    run = ON_PAPER.finetuning(PLAIN, 0)
    assert run.words[5:8] == ("--init", "pseudo", "--checkpoint")
    assert run.words[8] == str(needed(run, "pretrain").directory)
    assert " --prompts off" in " ".join(needed(run, "pretrain").words)


def test_the_ablations_are_those_of_their_page() -> None:
    """docs/ablations.md: options of a pre-training, and the number that it leads to."""
    page = (Path(__file__).parents[3] / "docs" / "ablations.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(make pretrain MODEL=knet [^`]*)` \| (\d+\.\d) \|", page)
    on_page = set()
    for line, number in commands:
        words = dict(word.split("=", 1) for word in shlex.split(line)[2:])
        masks = words["SHARDS"].removeprefix("shards-").replace("densecl", "saliency")
        options = words.get("OPTS", "").removeprefix("--saliency-prompt").split()
        on_page.add((masks, words.get("PROMPTS") != "off", tuple(options), float(number)))
    rows = [row for number in (4, 5, 7) for row in TABLES[number].rows]
    assert {(row.masks, row.init == "sp", row.options, row.paper[0]) for row in rows} == on_page


def test_half_of_the_demo_set_stands_for_half_of_the_labels() -> None:
    assert ON_DEMO.data("coco5").words[4:7] == ("1", "30", "60")
    assert Plan(replace(DEMO, datasets=demo_datasets(4, 1, 2)), ROOT).data("coco5").words[4:7] == ("1", "1", "2")


def test_freesolos_masks_are_imported_where_they_are_given() -> None:
    assert "freemask" in ON_PAPER.shards("freesolo", 0).words
    imported = Plan(replace(PAPER, freesolo="masks.json"), ROOT).shards("freesolo", 0).words
    assert imported[5:9] == ("--generator", "import", "--set", 'file="masks.json"')


@pytest.mark.parametrize(
    ("plan", "stated", "epochs"),
    [(ON_PAPER, 80, 80), (ON_PAPER, None, None), (ON_DEMO, 80, DEMO.finetune_epochs), (ON_DEMO, 2, 2)],
)
def test_epochs_are_the_rows_the_data_sets_or_fewer(plan: Plan, stated: int | None, epochs: int | None) -> None:
    assert parse(*plan.finetuning(replace(METHOD, epochs=stated), 0).words)["epochs"] == epochs


def test_what_a_scale_lacks_is_left_out() -> None:
    assert [row.names for row in DEMO.rows(TABLES[2])] == [
        ("CTW1500", "Mask R-CNN", "Img. Sup."),
        ("CTW1500", "SOLOv2", "Img. Sup."),
        ("CTW1500", "K-Net", "Img. Sup."),
        ("CTW1500", "K-Net", "SP"),
    ]
    assert len(DEMO.rows(TABLES[6])) == 4
    assert all(PAPER.rows(table) == table.rows for table in TABLES.values())


def test_machines_change_commands_and_no_names() -> None:
    plain, machine = (Plan(DEMO, Path("w"), *options).finetuning(METHOD, 0) for options in ((), ("cuda", 8, 4)))
    pretrained = needed(plain, "pretrain")
    assert plain.name == machine.name
    assert plain.words[-2:] == ("--work-dir", f"w/runs/{plain.name}")
    assert f"--checkpoint w/runs/{pretrained.name} --data-root" in " ".join(plain.words)
    assert machine.words == (*plain.words, "--device", "cuda", "--gpus", "8", "--batch-size", "4")


@pytest.mark.parametrize("file", ["models/knet_lite0.py", "models/parts/resnet50.py", "datasets/demo.py", "runtime.py"])
def test_a_changed_config_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(planning.CONFIGS, configs)
    name, shards = ON_DEMO.finetuning(METHOD, 0).name, ON_DEMO.shards("saliency", 0).name
    with (configs / file).open("a") as fragment:
        fragment.write("\nfind_unused_parameters = True\n")
    monkeypatch.setattr(planning, "CONFIGS", configs)
    assert ON_DEMO.finetuning(METHOD, 0).name != name
    assert ON_DEMO.shards("saliency", 0).name == shards


def test_the_settings_of_a_generator_are_in_the_name_of_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(planning.CONFIGS, configs)
    saliency, random = (ON_DEMO.shards(masks, 0).name for masks in ("saliency", "random"))
    path = configs / "proposals/saliency.toml"
    path.write_text(f"seed = 8\n{path.read_text()}")
    monkeypatch.setattr(planning, "CONFIGS", configs)
    assert ON_DEMO.shards("saliency", 0).name != saliency
    assert ON_DEMO.shards("random", 0).name == random
