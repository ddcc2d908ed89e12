"""The notebook of docs/ runs from top to bottom, on two images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from tests import tiny_knet

NOTEBOOK = Path(__file__).parents[1] / "docs" / "predicting.ipynb"


def test_every_cell_runs(tmp_path: Path, write_labels: Callable[..., Path], capsys: Any) -> None:
    small = (*tiny_knet.MODEL, *tiny_knet.TEST_IMAGES)
    overrides = Overrides(data_root=str(write_labels(images=3)), workers=0, cfg_options=small)
    run = tiny_knet.untrained_run(tmp_path / "run", finetuning_config("knet_lite0", "demo", overrides=overrides))
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    values: dict[str, Any] = {}
    for cell in cells:
        assert cell["outputs"] == []
        exec("".join(cell["source"]), values)
        if "parameters" in cell["metadata"].get("tags", []):
            values |= {"WORK_DIR": run, "IMAGES": tmp_path / "labelled" / "test", "MIN_SCORE": 0.0}
    printed = capsys.readouterr().out
    assert printed.startswith("1.png (6, 64, 64) (6, 4)\n  text 0.")
    assert len(printed.splitlines()) == 14
    assert [picture.size for picture in values["pictures"]] == [(640, 640)] * 2
