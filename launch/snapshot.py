"""A copy of the code that will run, so that editing the checkout cannot change a queued or requeued job."""

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import mscgan
from mscgan.errors import UserError

PARTS = ("mscgan", "launch", "shards", "benchmarks")
LIMIT = 64 * 2**20  # bytes; code is far smaller, so more than this is data that lies among it


def take(root: Path, to: Path) -> str:
    """Copies the code of `root` to the new folder `to`. Returns its commit; raises UserError, as `code` does."""
    files, commit = code(root)
    for name, file in files.items():
        copy = to / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        copy.chmod(0o400)
    return commit


def code(root: Path) -> tuple[dict[str, Path], str]:
    """What git tracks, and what it neither tracks nor ignores, of PARTS in `root`.

    Without git: every file but caches. Links are left out: they may lead out of the checkout. Installed from a wheel,
    `root` is mscgan_tools in site-packages and lacks the package mscgan itself, which is taken from where it lies.

    Returns:
        The files by their names in the copy; the commit, with "+changes" where the checkout differs from it, "no git"
        where there is none, of a wheel its version.

    Raises:
        UserError: more than 64 MiB, which cannot be code.
    """
    places = dict.fromkeys(PARTS, root)
    names, commit = _git_files(root)
    if not (root / "mscgan").is_dir():
        places["mscgan"] = Path(mscgan.__file__).parents[1]
        commit = f"version {metadata.version('mscgan')}"
    if names is None:
        names = [str(path.relative_to(place)) for part, place in places.items() for path in (place / part).rglob("*")]
    files = {name: places[Path(name).parts[0]] / name for name in sorted(set(names)) if "__pycache__" not in name}
    files = {name: file for name, file in files.items() if file.is_file() and not file.is_symlink()}
    sizes = {name: file.stat().st_size for name, file in files.items()}
    if sum(sizes.values()) > LIMIT:
        largest = max(files, key=sizes.__getitem__)
        raise UserError(
            f"the code to copy to the run folder has {sum(sizes.values()) / 2**20:.0f} MiB, more than {LIMIT >> 20}; "
            f"the largest file is {largest}: move it from {', '.join(PARTS)} or name it in .gitignore"
        )
    return files, commit


def _git_files(root: Path) -> tuple[list[str] | None, str]:
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS)
    if listed is None:
        return None, "no git"
    commit = (_git(root, "rev-parse", "HEAD") or "no commit").strip()
    changed = _git(root, "status", "--porcelain", "--", *PARTS)
    return listed.split("\0")[:-1], commit + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where it is not installed or `root` is no work tree of its own."""
    if not (root / ".git").exists():  # a folder inside someone else's work tree is not this project's
        return None
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
