"""Random input: each room takes it or refuses it in its own words, and raises nothing else."""

import contextlib
import io
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import build_dataset
import train_model
from cancernet import cli, config, files, locks
from cancernet.cli import InputError
from cancernet.data import building, dataset, originals, splitting
from cancernet.data.patches import PNG_SIGNATURE, ExcludedError, check_image, parse_source
from cancernet.data.pipeline import read_patch
from cancernet.evaluation import scorecard
from cancernet.recipes import Augmentation
from cancernet.training import devices, training

MUTATIONS = 5_000

# --- Images --------------------------------------------------------------------------------------

PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8), (0, 0), 2
)


def encode(mode: str, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Flips a bit, sets a byte, takes bytes away or puts some in, one to three times."""
    mutated = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(0, len(mutated) + 1))
        some = random.bytes(int(random.integers(1, 9)))
        match random.integers(0, 4):
            case 0:
                mutated[place : place + 1] = some[:1]
            case 1:
                for byte in mutated[place : place + 1]:
                    mutated[place] = byte ^ 1 << int(random.integers(0, 8))
            case 2:
                del mutated[place : place + len(some)]
            case 3:
                mutated[place:place] = some
    return bytes(mutated)


def mutate_chunk(data: bytes, random: np.random.Generator) -> bytes:
    """Mutates, drops, doubles or renames a chunk of a PNG, and mends all checksums."""
    chunks, position = [], len(PNG_SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunks.append((data[position + 4 : position + 8], data[position + 8 :][:length]))
        position += 12 + length
    place = int(random.integers(0, len(chunks)))
    kind, body = chunks[place]
    changes = [[], [(kind, body)] * 2, [(random.bytes(4), body)], [(kind, mutate(body, random))]]
    chunks[place : place + 1] = changes[random.integers(0, len(changes))]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize(
    ("kind", "mutation", "sources"),
    [
        ("PNG", mutate, [("RGB", {}), ("P", {}), ("RGBA", {})]),
        ("PNG", mutate_chunk, [("RGB", {}), ("L", {}), ("P", {}), ("RGBA", {}), ("1", {})]),
        ("JPEG", mutate, [("RGB", {}), ("L", {}), ("RGB", {"progressive": True})]),
    ],
)
def test_what_passes_the_check_of_images_can_be_read_in_training(
    tmp_path: Path,
    kind: str,
    mutation: Callable[[bytes, np.random.Generator], bytes],
    sources: list[tuple[str, dict[str, object]]],
) -> None:
    random = np.random.default_rng(5)
    images = [encode(mode, kind, **options) for mode, options in sources]
    path, passed = tmp_path / "patch", 0
    for number in range(MUTATIONS):
        data = mutation(images[number % len(images)], random)
        try:
            width, height = check_image(data, min_side=25, max_pixels=10**8)
        except ExcludedError:
            continue
        passed += 1
        decoded = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        assert decoded.shape == (height, width, 3)
        if passed % 50 == 0:  # The decoding above is this one's first line.
            path.write_bytes(data)
            assert read_patch(tf.constant(str(path)), height=48, width=48).shape == (48, 48, 3)
    if mutation is mutate and kind == "PNG":
        assert passed < MUTATIONS / 100  # Its checksums leave next to nothing but bytes at the end.
    else:
        assert passed > MUTATIONS / 20  # Else nothing is proved.


# --- Names and manifests -------------------------------------------------------------------------

parts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["0", "1", "8863", "..", ".", "._a", "__MACOSX", "8863_idx5_x1_y1_class0.png"]),
    st.from_regex(r"[0-9]{1,5}_idx5_x[0-9]*_y[0-9]*_class[0-9]*(\.png)?", fullmatch=True),
)


@settings(max_examples=500)
@given(st.lists(parts, min_size=1, max_size=5).map("/".join))
def test_any_path_has_a_patient_and_a_label_or_is_left_out(source: str) -> None:
    with contextlib.suppress(ExcludedError):
        name = parse_source(source)
        assert name.label == int(source.split("/")[-2])
        assert name.patient
        assert name.patient in source


fields_of_rows = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["training", "testing", "0", "1", "-1", "", "../x", "p/0/a.png", "9" * 5000]),
)
good = ["training", "0", "p", "", "", "p/0/a.png", "training/0/a.png", "1", "0" * 64]


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_row_of_a_manifest_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    row = list(good)
    for place in data.draw(st.lists(st.integers(0, 8), max_size=4)):
        row[place] = data.draw(fields_of_rows)
    row += data.draw(st.lists(fields_of_rows, max_size=1))
    path = tmp_path / "manifest.csv"
    header = [field.name for field in fields(dataset.Row)]
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        files.write_rows(file, [header, row])
    with contextlib.suppress(InputError):
        (read,) = dataset._read_manifest(path)
        assert read.label in (0, 1)
        assert ".." not in read.file.split("/")


# --- Configuration -------------------------------------------------------------------------------

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([0, 1, 0.5, 10**400, math.inf, math.nan, "copy", "patient", {}, set(), b"x"]),
)

CHECKS: dict[str, Callable[..., object]] = {
    "fractions": lambda a, b: splitting.split_fractions(a, b),
    "method": lambda a, _: splitting.check_method(a),
    "copy mode": lambda a, _: building.check_copy_mode(a),
    "split folders": lambda a, b: building.split_folders("idc", ("idc/a", a, b)),
    "path": lambda a, _: cli.configured_path("BASE_PATH", a),
    "figures": lambda a, b: scorecard.check_settings(measure=a, resamples=b),
    "precision": lambda a, _: devices.mixed_precision(a),
    "angles": lambda a, b: Augmentation(a, 0, 0, 0, b, False, False),
    "shares": lambda a, b: Augmentation(0, a, b, a, 0, False, False),
    "flips": lambda a, b: Augmentation(0, 0, 0, 0, 0, a, b),
    "limits": lambda a, b: originals.examine(Path("none"), min_side=a, max_pixels=b),
    "sizes": lambda a, b: check_network(width=a, height=b),
    "depth": lambda a, b: check_network(depth=a, classes=b),
    "rate": lambda a, b: check_network(learning_rate=a, decode_cache_mb=b),
    "seed": lambda a, _: check_network(seed=a),
}


def check_network(**changes: object) -> None:
    usual = {"width": 48, "height": 48, "depth": 3, "classes": 2}
    rest = {"learning_rate": 0.01, "seed": 1, "decode_cache_mb": 0}
    training.check_settings(**usual | rest | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("check", CHECKS)
@given(values, values)
@example({}, set())
def test_every_check_of_the_configuration_takes_or_refuses_any_value(
    check: str, first: object, second: object
) -> None:
    with contextlib.suppress(InputError):
        CHECKS[check](first, second)


CONSTANTS = sorted(name for name in vars(config) if name.isupper())


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from(CONSTANTS), values, min_size=1, max_size=3), st.booleans())
@example({"COPY_MODE": []}, True)
@example({"SPLIT_BY": {}}, True)
def test_scripts_refuse_any_configuration_in_their_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], builds: bool
) -> None:
    script = build_dataset if builds else train_model
    with monkeypatch.context() as changed:
        changed.chdir(tmp_path)  # Without any data: so there is something to refuse at the latest.
        changed.setattr("sys.argv", ["script"])
        for lock in ("build", "share", "write"):
            changed.setattr(locks, lock, lambda _: None)
        for name, value in changes.items():
            changed.setattr(config, name, value)
        with pytest.raises((InputError, OSError, SystemExit)) as refused:
            script.main()
        assert not isinstance(refused.value, SystemExit) or refused.value.code == 2
