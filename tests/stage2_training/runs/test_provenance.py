import json
from datetime import datetime

import numpy
import pytest

from stage1_proposals.common.errors import UserError
from stage2_training.runs.provenance import COMMANDS, read_commands, record_command

FIRST = ["python", "-m", "pipelines.finetune", "--dataset", "my labels/ü\n.json"]


def test_every_start_is_a_line(tmp_path):
    record_command(tmp_path, FIRST, "cpu")
    record_command(tmp_path, ["python", "-m", "pipelines.finetune"], "2 x some GPU")
    assert len((tmp_path / COMMANDS).read_bytes().splitlines()) == 2
    first, second = read_commands(tmp_path)
    assert first["argv"] == FIRST
    assert first["software"]["numpy"] == numpy.__version__
    assert {"code", "python", "torch", "mmdet"} <= set(first["software"])
    assert datetime.fromisoformat(first["started"]) <= datetime.fromisoformat(second["started"])
    assert (first["device"], second["device"]) == ("cpu", "2 x some GPU")


def test_half_a_line_of_a_killed_run_costs_that_line_alone(tmp_path):
    record_command(tmp_path, FIRST, "cpu")
    path = tmp_path / COMMANDS
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    assert len(read_commands(tmp_path)) == 1
    record_command(tmp_path, FIRST, "cpu")
    assert [record["argv"] for record in read_commands(tmp_path)] == [FIRST, FIRST]


@pytest.mark.parametrize("line", ["[]", "3", '{"argv": ["python"]}', "[" * 100_000, "\x00\xff"])
def test_foreign_lines_are_passed_over(tmp_path, line):
    record_command(tmp_path, FIRST, "cpu")
    path = tmp_path / COMMANDS
    broken = json.dumps(json.loads(path.read_text()) | {"argv": [1]})
    path.write_text(f"{line}\n{broken}\n{path.read_text()}", encoding="latin-1")
    assert [record["argv"] for record in read_commands(tmp_path)] == [FIRST]


def test_a_run_without_any_has_none(tmp_path):
    assert read_commands(tmp_path) == []


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / COMMANDS).mkdir()
    with pytest.raises(UserError, match=f"{COMMANDS}: cannot be written"):
        record_command(tmp_path, FIRST, "cpu")
