"""What decides whether `.venv` is up to date, and which MMCV goes into it."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pipelines import setup

LOCK = """\
numpy==2.4.6 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
onedl-mmcv==2.3.6 \\
    --hash=sha256:cc
onedl-mmcv-extras==1.0 \\
    --hash=sha256:dd
torch==2.13.0 ; sys_platform == 'linux' \\
    --hash=sha256:ee
"""


def test_the_lock_is_split_into_mmcv_and_all_others() -> None:
    others, mmcv = setup.split_lock(LOCK)
    assert mmcv == "onedl-mmcv==2.3.6 \\\n    --hash=sha256:cc\n"
    assert others == LOCK.replace(mmcv, "")


def test_the_projects_own_lock_splits() -> None:
    others, mmcv = setup.split_lock(setup.LOCK.read_text())
    assert len(others) + len(mmcv) == len(setup.LOCK.read_text())
    assert mmcv.count("==") == 1
    assert "\ntorch==" in others


@pytest.mark.parametrize("text", ["numpy==2.4.6\n", "onedl-mmcv==1\nonedl-mmcv==2\n", ""])
def test_a_lock_without_exactly_one_mmcv_is_refused(text: str) -> None:
    with pytest.raises(setup.SetupError, match="must pin onedl-mmcv exactly once"):
        setup.split_lock(text)


def test_a_lock_without_a_pinned_version_is_refused() -> None:
    setup.check_lock('["torch==2.13.0", "numpy>=2", "onedl-mmcv==2.3.6"]', LOCK)
    with pytest.raises(setup.SetupError, match=r"lacks torch==2\.13\.1, .* run `make lock` first"):
        setup.check_lock('["numpy==2.4.6", "torch==2.13.1"]', LOCK)


def test_the_projects_own_lock_has_its_pins() -> None:
    setup.check_lock((setup.ROOT / "pyproject.toml").read_text(), setup.LOCK.read_text())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project root of its own."""
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(setup, "STAMP", tmp_path / "setup.sha256")
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "requirements.lock").write_text(LOCK)
    return tmp_path


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_the_fingerprint_sees_a_change_of_what_is_installed(root: Path, name: str) -> None:
    before = setup.fingerprint()
    assert setup.fingerprint() == before
    (root / name).write_text("changed")
    assert setup.fingerprint() != before


def test_nothing_is_built_when_the_stamp_fits(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["setup"])
    monkeypatch.setattr(setup, "build", lambda ops: pytest.fail("built"))
    (root / "setup.sha256").write_text(setup.fingerprint())
    assert setup.main() == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("compiled", "given", "built"),
    [
        (False, [], []),
        (False, ["--ops", "torch"], []),
        (False, ["--ops", "compiled"], ["compiled"]),
        (True, [], []),  # a `.venv` keeps its operators
        (True, ["--ops", "torch"], ["torch"]),
    ],
)
def test_other_operators_are_built_on_demand(
    root: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, given: list[str], built: list[str]
) -> None:
    package = root / ".venv/lib/python3.11/site-packages/mmcv"
    package.mkdir(parents=True)
    (package / "_ext.py").touch()
    if compiled:
        (package / "_ext.cpython-311-x86_64-linux-gnu.so").touch()
    calls: list[str] = []
    monkeypatch.setattr(sys, "argv", ["setup", *given])
    monkeypatch.setattr(setup, "build", calls.append)
    (root / "setup.sha256").write_text(setup.fingerprint())
    assert setup.main() == 0
    assert calls == built


def test_mmcv_without_operators_gets_the_module_in_their_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = root / ".venv/lib/python3.11/site-packages/mmcv"
    commands: list[tuple[str, ...]] = []

    def install(*command: str | Path, **_: str) -> None:
        commands.append(tuple(map(str, command)))
        package.mkdir(parents=True)

    monkeypatch.setattr(setup, "run", install)
    setup.install_mmcv(("uv", "install"), "onedl-mmcv==2.3.6 \\\n", root / "r.txt", "torch")
    (command,) = commands
    assert command[:3] == ("uv", "install", "--require-hashes")
    assert "--no-build-isolation" not in command
    assert "mmcv_operators import __getattr__" in (package / "_ext.py").read_text()


def test_what_the_machine_lacks_is_one_line_and_2(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["setup"])
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    assert setup.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("setup: Python 3.11 or 3.12 is needed")
    assert error.count("\n") == 1


def test_a_failed_step_is_named_and_leaves_no_stamp(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*command: object, **_: str) -> None:
        raise subprocess.CalledProcessError(7, [str(part) for part in command])

    monkeypatch.setattr(sys, "argv", ["setup"])
    monkeypatch.setattr(setup, "run", run)
    (root / "setup.sha256").write_text("stale")
    (root / "python").touch()
    assert setup.main() == 1
    assert "failed with exit code 7" in capsys.readouterr().err
    assert not (root / "setup.sha256").exists()


TORCH = {"python": "3.11", "machine": "x86_64", "torch": "2.13.0+cu130", "cuda": "13.0", "gpu": False}


def test_the_wheelhouse_is_another_for_whatever_the_binary_depends_on() -> None:
    changes = ({}, {"python": "3.12"}, {"machine": "aarch64"}, {"torch": "2.13.1"}, {"gpu": True})
    houses = [setup.wheelhouse("2.3.6", TORCH | change) for change in changes]
    houses += [setup.wheelhouse("2.3.7", TORCH), setup.wheelhouse("2.3.6", TORCH | {"gpu": True, "cuda": "12.8"})]
    assert len(set(houses)) == 7


def test_a_wheel_in_the_wheelhouse_is_not_compiled_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(setup, "describe_torch", lambda: TORCH)
    monkeypatch.setattr(setup, "run", lambda *command, **_: pytest.fail("compiled"))
    house = setup.wheelhouse("2.3.6", TORCH)
    house.mkdir(parents=True)
    (house / "mmcv.whl").touch()
    assert setup.compile_mmcv("onedl-mmcv==2.3.6 \\\n", root / "r.txt") == house / "mmcv.whl"


def test_the_operators_are_compiled_as_the_headers_of_pytorch_need_it(tmp_path: Path) -> None:
    source = tmp_path / "source" / "onedl_mmcv-2.3.6"
    source.mkdir(parents=True)
    (source / "setup.py").write_text("cxx = ['-Wall', '-std=c++17']\nnvcc = ['-std=c++17']\n")
    archive = tmp_path / "scratch" / "onedl_mmcv-2.3.6.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(source, source.name)
    unpacked = setup.unpack(archive)
    assert (unpacked / "setup.py").read_text() == "cxx = ['-Wall', '-std=c++20']\nnvcc = ['-std=c++20']\n"


def test_a_gpu_without_nvcc_is_refused_with_what_to_do(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(setup, "describe_torch", lambda: TORCH | {"gpu": True})
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    with pytest.raises(setup.SetupError, match=r"CUDA toolkit 13\.0 .* OPS=torch"):
        setup.compile_mmcv("onedl-mmcv==2.3.6 \\\n", root / "r.txt")


def test_it_needs_nothing_installed() -> None:
    """It runs before `.venv` is there: -S leaves out site-packages."""
    command = [sys.executable, "-S", "-c", "import pipelines.setup"]
    subprocess.run(command, check=True, cwd=Path(setup.__file__).parents[1], env={})
