"""Kills build_dataset.py at random moments and looks at what is left.

    python tests/kill_builds.py              40 kills, some seconds
    python tests/kill_builds.py 1000 7       1,000 kills, seed 7

Each kill comes at a random touch of the file system. After it the old data set or the new one has
to be there as a whole (or none, where there was none), training must take nothing else for a set,
and the next build has to leave nothing behind. Needs `os.fork`, for speed: the imports are shared.
"""

import atexit
import itertools
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from cancernet.cli import InputError  # noqa: E402
from cancernet.data import building, dataset, originals, sample, summary  # noqa: E402, F401
from cancernet.data.dataset import Dataset  # noqa: E402
from cancernet.files import lock_for_reading, swap_places  # noqa: E402

TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
LISTS = 3  # Each is put in its place by a rename, too, before the swap.
TOUCHES_OF_A_BUILD = 400  # About as many as one of these small builds has.


def write_originals(folder: Path) -> None:
    generator = np.random.default_rng(1)
    for patient in range(12):
        for index in range(6):
            pixels = generator.integers(0, 256, (25, 25, 3), dtype=np.uint8)
            path = folder / f"patient {patient}" / str(int(index > 3)) / f"{patient}_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def build(target: Path, seed: int, *, kill_at: int = 0, events: tuple[str, ...] = TOUCHES) -> int:
    """Builds in a fork, which kills itself before event number `kill_at`; gives its exit status."""
    if process := os.fork():
        return os.waitpid(process, 0)[1]
    code = 99
    try:
        os.chdir(target.parent)
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        touches = itertools.count(1)

        def touch(event: str, _arguments: tuple[object, ...]) -> None:
            if event in events and next(touches) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(touch)
        options = ["--original", "original", "--dataset", target.name, "--seed", str(seed)]
        sys.argv = ["build_dataset.py", *options]
        runpy.run_path(str(PROJECT / "build_dataset.py"), run_name="__main__")
    except SystemExit as end:
        atexit._run_exitfuncs()
        code = int(end.code or 0)
    finally:
        os._exit(code)


def build_whole(target: Path, seed: int) -> bytes:
    """Builds to the end, makes sure that nothing but the set is left, and gives its manifest."""
    assert build(target, seed) == 0, target.with_name("output").read_text()
    rubbish = list(target.parent.glob(f".{target.name}.*"))
    assert not rubbish, rubbish
    return (target / dataset.MANIFEST).read_bytes()


def state(target: Path) -> str:
    """Says how far a killed build had come."""
    new, old = swap_places(target)
    if old.exists():
        return "clearing the old set away" if target.exists() else "between the two renames"
    if new.exists():
        return "set written, not yet swapped" if (new / dataset.BUILD).exists() else "copying"
    return "before copying, or done"


def check(target: Path, whole: dict[int, bytes], *, among: set[int | None]) -> int | None:
    """Opens what is there as train_model.py does; gives its seed, or None where there is none."""
    release = lock_for_reading(target)  # The killed process holds nothing.
    try:
        data = Dataset.open(target, verify=True)
    except InputError:
        assert None in among, "the older set is lost"
        assert not target.exists(), "half a set stands in the place of one"
        return None
    finally:
        release()
    seed: int = data.build["seed"]
    assert seed in among, f"the set is of seed {seed}, expected one of {among}"
    assert (target / dataset.MANIFEST).read_bytes() == whole[seed]
    return seed


def main(kills: int = 40, seed: int = 1) -> None:
    generator = random.Random(seed)
    survived: Counter[str] = Counter()
    # Not a TemporaryDirectory: every process that ends here would delete it.
    folder = Path(tempfile.mkdtemp())
    try:
        write_originals(folder / "original")
        whole = {each: build_whole(folder / f"whole{each}", each) for each in (1, 2)}
        assert whole[1] != whole[2]

        there: dict[Path, int | None] = {folder / "whole1": 1, folder / "none yet": None}
        for kill in range(kills):
            target = generator.choice(sorted(there))
            older, newer = there[target], 2 if there[target] == 1 else 1
            if kill % 4 == 0:  # In the swap, before one of its two renames.
                at = LISTS + (1 + kill // 4 % 2 if older else 1)
                build(target, newer, kill_at=at, events=("os.rename",))
            else:
                build(target, newer, kill_at=generator.randint(1, TOUCHES_OF_A_BUILD))
            survived[state(target)] += 1
            among = {older, newer}
            if kill % 3 == 0:  # The first to look at what is left is the next build, not training.
                build_whole(target, newer)
                among = {newer}
            there[target] = check(target, whole, among=among)
    finally:
        shutil.rmtree(folder)

    print(f"{'build_dataset.py killed while':<34}{'survived':>8}")
    for where, times in survived.most_common():
        print(f"{where:<34}{times:>8}")
    print(f"{'all':<34}{kills:>8}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
