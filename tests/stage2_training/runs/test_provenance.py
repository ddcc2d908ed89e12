import json
from datetime import datetime
from importlib.metadata import version

import numpy
import pytest

from stage1_proposals.common.errors import UserError
from stage2_training.runs import provenance
from stage2_training.runs.provenance import COMMANDS, CommandRecord

FIRST = ["saliency-prompt", "finetune", "--dataset", "my labels/ü\n\u2028\udcff.json"]


def record(directory, argv=FIRST, device="cpu"):
    CommandRecord.now(argv, device).append_to(directory)


def argvs(directory) -> list[list[str]]:
    return [start.argv for start in CommandRecord.read_all(directory)]


def test_every_start_is_a_line(tmp_path):
    record(tmp_path)
    record(tmp_path, ["saliency-prompt", "finetune"], "2 x some GPU")
    assert len((tmp_path / COMMANDS).read_bytes().splitlines()) == 2
    first, second = CommandRecord.read_all(tmp_path)
    assert first.argv == FIRST
    assert first.software["numpy"] == numpy.__version__
    assert {"code", "python", "torch", "mmdet"} <= set(first.software)
    assert datetime.fromisoformat(first.started) <= datetime.fromisoformat(second.started)
    assert (first.device, second.device) == ("cpu", "2 x some GPU")


def test_the_code_is_a_commit_a_version_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.code_version() == version("saliency-prompt")
    (tmp_path / ".git").mkdir()  # but no git repository
    assert provenance.code_version() == "unknown"


def test_half_a_line_of_a_killed_process_loses_only_that_line(tmp_path):
    record(tmp_path)
    path = tmp_path / COMMANDS
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    assert argvs(tmp_path) == [FIRST]
    record(tmp_path)
    assert argvs(tmp_path) == [FIRST, FIRST]


@pytest.mark.parametrize("line", ["[]", "3", '{"argv": ["python"]}', "[" * 100_000, "\x00\xff"])
def test_foreign_lines_are_skipped(tmp_path, line):
    record(tmp_path)
    path = tmp_path / COMMANDS
    broken = json.dumps(json.loads(path.read_text()) | {"argv": [1]})
    path.write_text(f"{line}\n{broken}\n{path.read_text()}", encoding="latin-1")
    assert argvs(tmp_path) == [FIRST]


def test_a_run_without_commands_has_none(tmp_path):
    assert CommandRecord.read_all(tmp_path) == []


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / COMMANDS).mkdir()
    with pytest.raises(UserError, match=f"{COMMANDS}: cannot be written"):
        record(tmp_path)
