"""`make setup`: build `.venv` with the pinned packages and the project itself.

It runs before anything is installed, so it uses the standard library only. MMCV publishes no wheel for current PyTorch
releases, and compiling its operators takes a quarter of an hour or more. So it is installed without them, and
`stage2_training/models/mmcv_operators.py` takes their place. `make setup OPS=compiled` compiles MMCV's own; the wheel
is kept in a per-user wheelhouse, under a name that holds everything the binary depends on, and later `.venv`s install
it from there. A `.venv` keeps the operators that it has until OPS says otherwise.
"""

from __future__ import annotations  # so that an old Python gets as far as the message about its version

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup.sha256"
LOCK = ROOT / "requirements.lock"
MMCV = "onedl-mmcv"
UV = "uv==0.13.9"
OPS = ("torch", "compiled")
STAND_IN = """\
from stage2_training.models.mmcv_operators import *
from stage2_training.models.mmcv_operators import __getattr__
"""


class SetupError(Exception):
    """The machine lacks something that only its user can supply; the message says what to do."""


def fingerprint() -> str:
    """SHA-256 of the files that decide what `.venv` holds."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", LOCK, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def split_lock(text: str) -> tuple[str, str]:
    """The lock's entries without MMCV, and MMCV's own; an entry is a requirement and its indented hashes."""
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    mmcv = [entry for entry in entries if entry.startswith(f"{MMCV}==")]
    if len(mmcv) != 1:
        raise SetupError(f"{LOCK.name} must pin {MMCV} exactly once; run `make lock` to write it anew")
    return "".join(entry for entry in entries if entry not in mmcv), mmcv[0]


def check_lock(project: str, lock: str) -> None:
    """Check that the lock has every version pinned in `pyproject.toml`; a `SetupError` names the first it lacks."""
    for pin in re.findall(r'"([A-Za-z0-9-]+==[^"; ]+)"', project):
        if not re.search(rf"^{re.escape(pin)}\b", lock, flags=re.MULTILINE):
            raise SetupError(f"{LOCK.name} lacks {pin}, which pyproject.toml pins; run `make lock` first")


def run(*command: str | Path, **env: str) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env={**os.environ, **env})


def describe_torch() -> dict[str, str | bool]:
    """What the compiled ops depend on, as the Python and torch inside `.venv` report it."""
    code = (
        "import json, platform, sys, torch; print(json.dumps(dict("
        "python='%d.%d' % sys.version_info[:2], machine=platform.machine(), torch=torch.__version__, "
        "cuda=torch.version.cuda or '', gpu=torch.cuda.is_available())))"
    )
    return json.loads(subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout)


def wheelhouse(mmcv_version: str, torch: dict[str, str | bool]) -> Path:
    """The folder for the MMCV wheel compiled for exactly this Python, torch and device."""
    device = f"cuda{torch['cuda']}" if torch["gpu"] else "cpu"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saliency-prompt" / "wheels"
    return cache / f"mmcv{mmcv_version}-py{torch['python']}-{torch['machine']}-torch{torch['torch']}-{device}"


def compile_mmcv(entry: str, requirements: Path) -> Path:
    """Return the MMCV wheel for this machine, compiling it when the wheelhouse has none."""
    torch = describe_torch()
    version = re.match(rf"{MMCV}==([^\s\\]+)", entry)[1]  # type: ignore[index]
    house = wheelhouse(version, torch)
    if not list(house.glob("*.whl")):
        if torch["gpu"] and not shutil.which("nvcc"):
            raise SetupError(
                f"this machine has a GPU, so MMCV's operators are compiled with nvcc, which is not on PATH: install "
                f"the CUDA toolkit {torch['cuda']} and add its bin folder to PATH, or use OPS=torch, which compiles "
                f"nothing"
            )
        print("Compiling MMCV's operators once for this machine (a quarter of an hour or more) ...", flush=True)
        requirements.write_text(entry)
        scratch = house.with_name(house.name + f".{os.getpid()}")
        run(
            PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
            "--require-hashes", "--requirement", requirements, "--dest", scratch,
        )  # fmt: skip
        run(
            PYTHON, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
            "--wheel-dir", scratch, unpack(next(scratch.glob("*.tar.gz"))),
            PATH=f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",  # ninja
            MMCV_WITH_OPS="1",
            MAX_JOBS=os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1),
        )  # fmt: skip
        house.mkdir(parents=True, exist_ok=True)
        for wheel in scratch.glob("*.whl"):
            wheel.replace(house / wheel.name)
        shutil.rmtree(scratch)
    return next(house.glob("*.whl"))


def unpack(archive: Path) -> Path:
    """Unpack MMCV's source beside its archive, and let it compile with PyTorch's headers, which need C++20."""
    with tarfile.open(archive) as file:
        file.extractall(archive.parent, filter="data")
    source = archive.parent / archive.name.removesuffix(".tar.gz")
    script = source / "setup.py"
    script.write_text(script.read_text().replace("-std=c++17", "-std=c++20"))
    return source


def installed_ops() -> str:
    """Which operators the MMCV in `.venv` has: one of `OPS`."""
    return "compiled" if list(VENV.glob("lib/python*/site-packages/mmcv/_ext.*.so")) else "torch"


def install_mmcv(install: tuple[str | Path, ...], entry: str, requirements: Path, ops: str) -> None:
    """Install MMCV with its compiled operators, or with the module that stands in for them."""
    if ops == "compiled":
        run(*install, "--no-index", "--reinstall", compile_mmcv(entry, requirements))
        return
    requirements.write_text(entry)
    # Built apart from PyTorch, MMCV compiles nothing.
    run(*install, "--require-hashes", "--reinstall", "--requirement", requirements)
    (package,) = VENV.glob("lib/python*/site-packages/mmcv")
    (package / "_ext.py").write_text(STAND_IN)


def build(ops: str) -> None:
    """Build `.venv` from the lock; complete a half-built one, update a stale one."""
    check_lock((ROOT / "pyproject.toml").read_text(), LOCK.read_text())
    if not PYTHON.exists():
        if not (3, 11) <= sys.version_info[:2] < (3, 13):
            raise SetupError(f"Python 3.11 or 3.12 is needed; {sys.executable} is {sys.version.split()[0]}")
        print("Creating .venv ...", flush=True)
        run(sys.executable, "-m", "venv", VENV)
    STAMP.unlink(missing_ok=True)
    run(PYTHON, "-m", "pip", "install", "--quiet", UV)
    others, mmcv = split_lock(LOCK.read_text())
    requirements = VENV / "requirements.txt"
    requirements.write_text(others)
    # Bytecode compiled now makes the first start of a command fast, even where PYTHONDONTWRITEBYTECODE is set.
    install = (VENV / "bin" / "uv", "pip", "install", "--python", PYTHON, "--no-deps", "--compile-bytecode")
    run(*install, "--require-hashes", "--requirement", requirements)
    install_mmcv(install, mmcv, requirements, ops)
    run(*install, "--no-build-isolation", "--editable", ROOT)  # brings the command `saliency-prompt`
    run(PYTHON, "-c", "import faiss, mmcv.ops, mmdet, ray, torchvision")
    STAMP.write_text(fingerprint())
    print("Set-up complete: .venv", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="setup", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--ops", choices=OPS, help="MMCV's operators. Default: those that .venv has; in a new one, torch."
    )
    ops = parser.parse_args().ops or installed_ops()
    if STAMP.exists() and STAMP.read_text() == fingerprint() and ops == installed_ops():
        return 0
    try:
        build(ops)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"setup: this step failed with exit code {error.returncode}: {error.cmd}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
