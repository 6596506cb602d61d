import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cancernet.cli import InputError
from cancernet.data import sample
from cancernet.data.sample import SAMPLE_PATIENTS, draw_sample

SEED = 42
NAME = re.compile(r"(\d{5})_idx5_x(\d+)_y(\d+)_class([01])\.png")
PUBLISHED = Path(sample.__file__).with_name("published.csv")


class Drawn(NamedTuple):
    folder: Path
    returned: int  # The number of patches, as draw_sample has it.
    files: list[Path]
    images: NDArray[np.uint8]  # RGB, shape (patches, 50, 50, 3).
    patients: list[str]
    labels: NDArray[np.int64]


def decoded(file: Path) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.dtype == np.uint8
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn") / "échantillon"
    returned = draw_sample(folder, seed=SEED)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    images = [decoded(file) for file in files]
    return Drawn(
        folder=folder,
        returned=returned,
        files=files,
        images=np.stack(images)[..., ::-1],
        patients=[file.parent.parent.name for file in files],
        labels=np.array([int(file.parent.name) for file in files]),
    )


@pytest.fixture
def one_patient(monkeypatch: pytest.MonkeyPatch) -> str:
    """Draws one patient alone, where the handling of folders is tested, not the drawing."""
    monkeypatch.setattr(sample, "SAMPLE_PATIENTS", SAMPLE_PATIENTS[:1])
    return SAMPLE_PATIENTS[0]


def contents(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_about_3200_patches_are_drawn_and_counted(drawn: Drawn) -> None:
    assert 3000 <= len(drawn.files) <= 3400
    assert drawn.returned == len(drawn.files)


def test_sixteen_patients_bear_numbers_of_their_own(drawn: Drawn) -> None:
    published = {line.split(",")[0] for line in PUBLISHED.read_text("utf-8").splitlines()[1:]}
    assert len(published) > 200
    assert sorted({*drawn.patients}) == sorted(SAMPLE_PATIENTS)
    assert len(set(SAMPLE_PATIENTS)) == 16
    assert published.isdisjoint(SAMPLE_PATIENTS)


def test_prevalence_is_the_published_one_and_differs_by_patient(drawn: Drawn) -> None:
    patches = Counter(drawn.patients)
    malignant = Counter(
        patient for patient, label in zip(drawn.patients, drawn.labels, strict=True) if label
    )
    shares = [malignant[patient] / patches[patient] for patient in SAMPLE_PATIENTS]
    assert 0.05 < min(shares) < 0.12
    assert 0.55 < max(shares) < 0.65
    assert drawn.labels.mean() == pytest.approx(0.28, abs=0.02)


def test_names_agree_with_folders_and_lie_on_the_grid(drawn: Drawn) -> None:
    places = set()
    for file in drawn.files:
        match = NAME.fullmatch(file.name)
        assert match, file.name
        patient, x, y, label = match.groups()
        assert file.relative_to(drawn.folder).parts == (patient, label, file.name)
        assert int(x) % 50 == 1
        assert int(y) % 50 == 1
        places.add((patient, x, y))
    assert len(places) == len(drawn.files)


def test_patches_are_50_by_50_rgb(drawn: Drawn) -> None:
    assert drawn.images.shape == (len(drawn.files), 50, 50, 3)
    red, green, blue = drawn.images.mean(axis=(0, 1, 2))
    assert red > blue > green  # As haematoxylin and eosin have it.


def test_neighbouring_patches_continue_each_other(drawn: Drawn) -> None:
    edges = {}
    for file, image in zip(drawn.files, drawn.images, strict=True):
        patient, x, y, _ = NAME.fullmatch(file.name).groups()  # type: ignore[union-attr]
        edges[patient, int(x), int(y)] = image.astype(float)
    seams = [
        np.abs(edges[patient, x + 50, y][:, 0] - image[:, -1]).mean()
        for (patient, x, y), image in edges.items()
        if (patient, x + 50, y) in edges
    ]
    inside = np.abs(np.diff(drawn.images.astype(np.float32), axis=2)).mean()
    assert len(seams) > 2000
    assert np.mean(seams) == pytest.approx(inside, rel=0.1)


def test_the_same_seed_gives_the_same_bytes(drawn: Drawn, tmp_path: Path) -> None:
    np.random.seed(7)  # noqa: NPY002 - The global state must not matter.
    draw_sample(tmp_path / "again", seed=SEED)
    assert contents(tmp_path / "again") == contents(drawn.folder)


def test_another_seed_gives_other_bytes(drawn: Drawn, tmp_path: Path, one_patient: str) -> None:
    draw_sample(tmp_path / "other", seed=SEED + 1)
    other = set(contents(tmp_path / "other" / one_patient).values())
    assert len(other) > 100
    assert other.isdisjoint(contents(drawn.folder / one_patient).values())


def test_patients_differ_in_stain(drawn: Drawn) -> None:
    patients = np.array(drawn.patients)
    benign = drawn.labels == 0
    colours = drawn.images.mean(axis=(1, 2))
    means = np.array([colours[benign & (patients == name)].mean(0) for name in SAMPLE_PATIENTS])
    darkness, hue = means.mean(axis=1), means[:, 0] - means[:, 2]
    assert np.ptp(darkness) > 15
    assert np.ptp(hue) > 15


def test_the_sample_is_neither_trivial_nor_impossible(drawn: Drawn) -> None:
    colours = drawn.images.mean(axis=(1, 2))
    spreads = drawn.images.std(axis=(1, 2))
    texture = [
        [cv2.Laplacian(image, cv2.CV_32F).var(), (image < 110).mean(), (image > 215).mean()]
        for image in drawn.images.mean(axis=3, dtype=np.float32)
    ]

    def score(features: NDArray[np.floating]) -> tuple[float, float]:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        folds = {"groups": drawn.patients, "cv": GroupKFold(5), "method": "predict_proba"}
        chance = cross_val_predict(model, features, drawn.labels, **folds)[:, 1]
        return roc_auc_score(drawn.labels, chance), accuracy_score(drawn.labels, chance > 0.5)

    auc, accuracy = score(np.hstack([colours, spreads, np.array(texture)]))
    assert 0.80 < auc < 0.97
    assert 0.75 < accuracy < 0.95
    colour_auc, _ = score(colours)
    assert 0.60 < colour_auc < auc


def test_an_older_sample_is_replaced(tmp_path: Path, one_patient: str) -> None:
    folder = tmp_path / "sample"
    stale = folder / SAMPLE_PATIENTS[0] / "1" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    leftover = tmp_path / "sample.drawing" / SAMPLE_PATIENTS[0] / "0" / "half.png"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    count = draw_sample(folder, seed=SEED)
    files = contents(folder)
    assert len(files) == count > 100
    assert all(NAME.fullmatch(Path(file).name) for file in files)
    assert [place.name for place in tmp_path.iterdir()] == ["sample"]


@pytest.mark.parametrize("place", ["sample", "sample.drawing", "sample.older"])
@pytest.mark.parametrize("foreign", ["thesis.txt", "mine/thesis.txt", "99901"])
def test_foreign_files_are_refused_and_left(tmp_path: Path, place: str, foreign: str) -> None:
    older = tmp_path / "sample" / "99902" / "0" / "older.png"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"older")
    file = tmp_path / place / foreign
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=re.escape(repr(foreign.split("/")[0]))):
        draw_sample(tmp_path / "sample", seed=SEED)
    assert contents(tmp_path) == before


def test_a_file_in_the_samples_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample").write_bytes(b"mine")
    with pytest.raises(InputError, match="is a file"):
        draw_sample(tmp_path / "sample", seed=SEED)
    assert (tmp_path / "sample").read_bytes() == b"mine"


def test_an_interrupted_run_leaves_the_older_sample_whole(
    tmp_path: Path, one_patient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sample"
    draw_sample(folder, seed=SEED)
    before = contents(folder)

    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cv2, "imencode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            draw_sample(folder, seed=SEED + 1)
    assert contents(folder) == before
    draw_sample(folder, seed=SEED + 1)
    assert contents(folder) != before
