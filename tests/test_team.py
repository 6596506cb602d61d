"""Two processes on loopback train together, are interrupted, killed and resumed."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import kill_training
import numpy as np
import pytest
from conftest import PROJECT, recipe_of
from pretended import copy_data, start_all

from cancernet.data import pipeline
from cancernet.training import fused, training

TESTS = Path(__file__).parent
TRAIN = PROJECT / "train_model.py"
EPOCHS, BATCH_SIZE = 3, 16

# 3 batches of 4 and 1 patch more, which is joined to the last of them: shares of 2 and 2, 3 and 2.
COUNT, SIDE, BATCH = 13, 8, 4
PROGRAM = """
import hashlib, json, os, sys
from pathlib import Path

from cancernet import cli
from cancernet.training import machines
cli.prepare_tensorflow()
import keras, numpy as np
from cancernet.data import pipeline
from cancernet.training import epochs, fused, team, training
from test_team import RECIPES, SIDE, batches, make_network, scoring

folder = Path(sys.argv[1])
us = machines.find(os.environ)
joined = team.join(us)
rank = us.rank
found = {"replicas": joined.replicas}
found["exchanged"] = [
    [its.decode() for its in joined.exchange(own.encode())]
    for own in ("ab" * (rank + 1), "" if rank else "x" * 9, "", "\\x00" * rank)
]
found["shares"] = [len(joined.share(range(n), batch_size=2)) for n in (1, 2, 3, 8)]

for kind in ("plain", "full"):
    keras.utils.set_random_seed(1)
    with joined.strategy.scope():
        twin = fused.twin(make_network(kind))
        training.compile_network(twin, RECIPES[kind], steps=3)
    if rank:  # What the chief has is what counts.
        twin.set_weights([weights + 1 for weights in twin.get_weights()])
    joined.begin(twin, [])
    own, seen, labels = batches(folder, machine=rank, machines=2)
    share = scoring(joined.share(sorted(folder.glob("*.png")), batch_size=4))
    settling = np.linspace(0, 1, 16 * SIDE * SIDE * 3, dtype="float32").reshape(-1, SIDE, SIDE, 3)
    log = epochs.EpochLog(share, labels, run=None, sample=False, predict=joined.predict,
                          settling=settling if kind == "full" else None)
    def counted():
        for images, targets in own:
            seen.append([round(float(pixel) * 255) for pixel in images.numpy()[:, 0, 0, 0]])
            yield images, targets
    training.fit(twin, counted(), labels=labels, recipe=RECIPES[kind], log=log, team=joined)
    alone = fused.twin(make_network(kind))
    alone.set_weights(twin.get_weights())
    floats = [v.numpy() for v in twin.variables + twin.optimizer.variables
              if np.asarray(v.numpy()).dtype == np.float32]
    found[kind] = {
        "seen": seen,
        "hash": hashlib.sha256(b"".join(value.tobytes() for value in floats)).hexdigest(),
        "weights": [weights.tolist() for weights in twin.get_weights()],
        "seeds": [v.numpy().tolist() for v in twin.variables if "seed" in v.name],
        "rows": [{name: value for name, value in row.items() if name != "seconds"}
                 for row in log.rows],
        "probabilities": joined.predict(twin, share).tolist(),
        "alone": fused.predict(alone, scoring(sorted(folder.glob("*.png")))).tolist(),
        "empty": joined.predict(twin, None if rank else share).size,
        "iterations": int(twin.optimizer.iterations.numpy()),
    }
print(json.dumps(found))
"""


RECIPES = {
    "plain": recipe_of(epochs=2, batch_size=BATCH, learning_rate=0.1),
    "full": recipe_of(
        epochs=2,
        batch_size=BATCH,
        optimizer="adamw",
        weight_decay=0.1,
        weight_average=0.9,
        label_smoothing=0.1,
        balance="none",
    ),
}


def make_network(kind: str) -> keras.Sequential:
    """With "plain" one that shares of a batch cannot be told from in the whole of it."""
    normal = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.25)]
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.SeparableConv2D(4, 3, activation="relu"),
            *(normal if kind == "full" else []),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
            keras.layers.Activation("softmax"),
        ]
    )


def batches(folder: Path, *, machine: int = 0, machines: int = 1):
    """Two epochs of batches, an empty list, and the labels, unbalanced."""
    labels = [int(number % 3 == 0) for number in range(COUNT)]
    made = pipeline.training_batches(
        sorted(folder.glob("*.png")),
        labels,
        image_size=(SIDE, SIDE),
        batch_size=BATCH,
        augmentation=None,
        seed=1,
        epochs=2,
        devices=2,
        machine=machine,
        machines=machines,
    )
    return made, [], labels


def scoring(files: Sequence[Path]):
    return pipeline.scoring_batches(files, image_size=(SIDE, SIDE), batch_size=BATCH)


def outcomes(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit codes, stdout and stderr but for TensorFlow's lines on CPU and CUDA."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=200)
        lines = [line for line in err.splitlines() if not line.startswith(("I0000", "WARNING: A"))]
        found.append((process.returncode, out, "\n".join(lines)))
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("pair")
    generator = np.random.default_rng(1)
    for number in range(COUNT):
        pixels = generator.integers(0, 150, (SIDE, SIDE, 3)) + 100 * (number % 3 == 0)
        pixels[0, 0] = number  # Which patch it is.
        keras.utils.save_img(folder / f"{number:02}.png", pixels, scale=False)
    program = ("-c", f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n{PROGRAM}", folder)
    ends = outcomes(start_all(program, program, folders=[folder] * 2))
    for code, _, err in ends:
        assert code == 0, err
    return folder, [json.loads(out.splitlines()[-1]) for _, out, _ in ends]


def test_bytes_of_any_length_are_exchanged(pair) -> None:
    for found in pair[1]:
        assert found["replicas"] == 2
        assert found["exchanged"] == [["ab", "abab"], ["x" * 9, ""], ["", ""], ["", "\0"]]
    assert [found["shares"] for found in pair[1]] == [[0, 0, 2, 4], [1, 2, 1, 4]]


@pytest.mark.parametrize("kind", ["plain", "full"])
def test_every_patch_is_seen_once_an_epoch_and_all_stay_equal(pair, kind: str) -> None:
    first, second = (found[kind] for found in pair[1])
    assert [len(share) for share in first["seen"]] == [2, 2, 3] * 2
    assert [len(share) for share in second["seen"]] == [2, 2, 2] * 2
    for epoch in (slice(0, 3), slice(3, 6)):
        seen = [n for found in (first, second) for share in found["seen"][epoch] for n in share]
        assert sorted(seen) == list(range(COUNT))
    assert first["hash"] == second["hash"]
    assert first["rows"] == second["rows"]
    assert first["iterations"] == 6
    assert len(first["rows"]) == 2
    assert first["seeds"] != second["seeds"] or kind == "plain"


def test_the_steps_are_those_of_one_machine(pair) -> None:
    keras.utils.set_random_seed(1)
    twin = fused.twin(make_network("plain"))
    training.compile_network(twin, RECIPES["plain"], steps=3)
    made, _, labels = batches(pair[0])
    history = twin.fit(
        made,
        epochs=2,
        steps_per_epoch=3,
        shuffle=False,
        class_weight=training.class_weights(labels),
        verbose=0,
    ).history
    found = pair[1][0]["plain"]
    for ours, its in zip(found["weights"], twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-4, atol=1e-6)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose([row[name] for row in found["rows"]], history[name], rtol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "full"])
def test_what_is_scored_together_is_what_one_machine_scores(pair, kind: str) -> None:
    first, second = (found[kind] for found in pair[1])
    assert len(first["probabilities"]) == COUNT
    assert first["probabilities"] == second["probabilities"] == first["alone"] == second["alone"]
    assert first["empty"] == second["empty"] == 8  # The chief's share.


# --- train_model.py ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("machines")
    kill_training.draw_patches(folder / "datasets/original")
    build = [sys.executable, str(PROJECT / "build_dataset.py")]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    return copy_data(folder, 2)


def command(output: str, *options: str) -> list[str]:
    numbers = ["--epochs", str(EPOCHS), "--batch-size", str(BATCH_SIZE)]
    return [str(TRAIN), *numbers, "--output", output, *options]


def wait_for_epoch(chief: subprocess.Popen[str]) -> None:
    assert chief.stdout is not None
    assert any(line.startswith("epoch ") for line in chief.stdout), chief.communicate()


@pytest.fixture(scope="module")
def unbroken(folders: list[Path]) -> Path:
    ends = outcomes(start_all(command("unbroken"), command("unbroken"), folders=folders))
    assert [(code, err) for code, _, err in ends] == [(0, ""), (0, "")]
    return folders[0] / "unbroken"


def test_predictions_are_those_of_one_process_with_the_same_weights(
    folders: list[Path], unbroken: Path
) -> None:
    with (unbroken / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    twin = fused.twin(keras.models.load_model(unbroken / "cancernet.keras"))
    files = [folders[0] / "datasets/idc" / row["file"] for row in rows]
    alone = pipeline.scoring_batches(files, image_size=(48, 48), batch_size=BATCH_SIZE)
    found = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(found, fused.predict(twin, alone), atol=1e-6)
    assert len(rows) == 32


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_killed_and_interrupted_training_ends_as_if_it_had_not_been(
    folders: list[Path], unbroken: Path
) -> None:
    killed = start_all(command("broken"), command("broken"), folders=folders)
    wait_for_epoch(killed[0])
    killed[1].kill()
    (code, _, err), _ = outcomes(killed)
    assert code == 2
    assert "worker 1 (127.0.0.1:" in err
    assert "--resume" in err
    assert len(err.splitlines()) == 1, err

    again = command("broken", "--resume")
    interrupted = start_all(again, again, folders=folders)
    wait_for_epoch(interrupted[0])
    interrupted[1].send_signal(signal.SIGINT)
    assert [(code, err) for code, _, err in outcomes(interrupted)] == [(0, ""), (0, "")]
    metrics = json.loads((folders[0] / "broken/metrics.json").read_text())
    assert any(note.startswith("stopped after") for note in metrics["notes"])

    resumed = outcomes(start_all(again, again, folders=folders))
    assert [code for code, _, _ in resumed] == [0, 0]
    assert "Going on after epoch" in resumed[0][1]
    assert kill_training.differences(unbroken, folders[0] / "broken") == []
    # The other machine wrote nothing, and left no lock.
    assert sorted(path.name for path in folders[1].iterdir()) == ["datasets"]
    assert sorted(path.name for path in (folders[1] / "datasets").iterdir()) == ["idc"]


def test_a_machine_that_differs_is_refused_by_all(folders: list[Path]) -> None:
    other = [*command("refused"), "--batch-size", "8"]
    manifest = folders[1] / "datasets/idc/manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    head, *lines = text.splitlines(keepends=True)
    manifest.write_text(head + "".join(lines[::-1]), encoding="utf-8")
    try:
        for code, _, err in outcomes(start_all(command("refused"), other, folders=folders)):
            assert code == 2, err
            assert "On worker 1 (127.0.0.1:" in err
            assert "BATCH_SIZE is 8, the chief's is 16; manifest.csv is" in err
            assert len(err.splitlines()) == 1, err
    finally:
        manifest.write_text(text, encoding="utf-8")
