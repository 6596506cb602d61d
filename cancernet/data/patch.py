"""What a patch file is: its name parsed, its bytes checked."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

SPLITS = ("training", "validation", "testing")
# The side of an IDC patch in pixels; patches at a slide's right and lower edges are smaller.
PATCH_SIDE = 50

LABELS = {"0": 0, "1": 1}

IDC_NAME = re.compile(
    # What stands behind, as in "..._class0 (1).png" or "..._class0_copy.png", changes no fact.
    r"(?P<patient>[0-9]+)_idx5_x(?P<x>[0-9]+)_y(?P<y>[0-9]+)_class[0-9]+(?![0-9])",
    re.IGNORECASE,
)
CLASS_IN_NAME = re.compile(r"_class(?P<label>[0-9]+)")
IDC_PATIENT = re.compile(r"[0-9]{4,5}")  # As all 281 numbers of the published table are.

PNG_SIGNATURE, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"  # The last chunk never differs.
JPEG_SIGNATURE, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# Amid the data of a JPEG 0xFF is followed by 0x00, a restart marker or itself: anything else is a
# marker (ITU-T T.81, annex B). The end, another scan or its tables may come after the data.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
JPEG_AFTER_SCAN = {JPEG_END, b"\xff\xda", b"\xff\xc4"}


class ExcludedError(Exception):
    """A file that cannot be used: a reason, the same phrase for all such files, and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keeps both."""
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class PatchFacts:
    """What the path of a patch from anywhere tells; None or empty where it does not."""

    patient: str
    label: int | None  # 0 benign, 1 malignant; None, too, where name and folder contradict.
    x: int | None  # Left and upper edge on the slide, in pixels.
    y: int | None


@dataclass(frozen=True)
class Patch(PatchFacts):
    """A patch of the original directory, whose patient and label are known."""

    label: int
    source: str  # Path below the original directory, with forward slashes.
    bytes: int = 0
    sha256: str = ""  # Of the file's bytes, in hexadecimal.
    size: tuple[int, int] = (0, 0)  # Width and height in pixels.


class Layout:
    """Which folder, or part of a file's name, is the patient and which the class.

    Its text has a part for each of the last folders of a path and one for the file's name, such as
    "patient/slide/class/file". Words other than "patient" and "class" stand for anything; such a
    folder, first the one nearest to the file, or a folder's last word may be missing. What is
    between words, as in "class/patient_file", stands for itself. Several patient words make one
    patient together.
    """

    def __init__(self, text: str) -> None:
        """Takes a text that the rule of LAYOUT in settings.py holds for."""
        self.text = text
        parts = text.split("/")
        words = [re.findall(WORD, part) for part in parts]
        self._words = [word for of_part in words for word in of_part if word in GROUPS]
        patterns = [*map(_folder_pattern, parts[:-1]), _pattern(parts[-1])]
        at_class = next(place for place, of_part in enumerate(words) if "class" in of_part)
        # What is above the class may be missing as a whole, since an IDC name tells the patient.
        before, after = "".join(patterns[:at_class]), "".join(patterns[at_class:])
        self._path = re.compile(f"((?:.*?/)??)(?:{before})?{after}", re.DOTALL)

    def read(self, source: str) -> tuple[str, str, str]:
        """Reads patient, class, and the folders above both; empty where a path has none."""
        match = self._path.fullmatch(source)
        above, *texts = match.groups("") if match else ("",)
        found = list(zip(self._words, texts, strict=False))
        patient = "_".join(text for word, text in found if text and word == "patient")
        return patient, "".join(text for word, text in found if word == "class"), above


WORD, ANYTHING = "[a-z0-9]+", "[^/]+?"
GROUPS = {"patient": f"({ANYTHING})", "class": "([01])"}


def _pattern(part: str) -> str:
    if part == "class":  # Which is named where it is another.
        return f"({ANYTHING})"
    return re.sub(WORD, lambda word: GROUPS.get(word[0], ANYTHING), re.escape(part))


def _folder_pattern(part: str) -> str:
    last_word = rf"\\?[-_ .]{re.escape(ANYTHING)}$"
    folder = re.sub(last_word, r"(?:\g<0>)?", _pattern(part)) + "/"
    return folder if GROUPS.keys() & re.findall(WORD, part) else f"(?:{folder})?"


LAYOUT = Layout("patient/class/file")
OTHER_LAYOUTS = (
    "Say which folder, or part of a name, is the patient: --layout patient/slide/class/file, "
    "site/patient/class/file, class/patient/file, class/patient_file, patient_slide/class/file or "
    "the like, or LAYOUT in cancernet/config.py (see docs/patients.md)."
)


def parse_source(source: str, layout: Layout = LAYOUT) -> Patch:
    """Reads patient, label and position from a path; an ExcludedError for what is amiss."""
    if source.encode(errors="ignore").decode() != source:
        raise ExcludedError("name is not valid UTF-8", "")
    parts = source.split("/")
    for part in parts:
        if part.startswith(".") or part == "__MACOSX":
            raise ExcludedError("hidden or macOS file", part)
    in_folder, label, _ = layout.read(source)
    if label not in LABELS:
        raise ExcludedError("class folder other than 0 or 1", label or f"expected {layout.text}")
    in_name = CLASS_IN_NAME.search(parts[-1])
    if in_name and in_name["label"] != label:
        raise ExcludedError("label mismatch", f"folder {label}, file name {in_name['label']}")
    idc_name = IDC_NAME.match(parts[-1])
    if not idc_name and not in_folder:
        raise ExcludedError("no patient", f"expected {layout.text}")
    if not idc_name:
        return Patch(in_folder, LABELS[label], None, None, source)
    patient = idc_name["patient"]
    if IDC_PATIENT.fullmatch(in_folder) and in_folder != patient:
        raise ExcludedError("patient mismatch", f"folder {in_folder}, file name {patient}")
    return Patch(patient, LABELS[label], int(idc_name["x"]), int(idc_name["y"]), source)


def read_facts(path: Path) -> PatchFacts:
    """Reads what there is of patient, label and position; `parse_source` needs them."""
    idc_name = IDC_NAME.match(path.name)
    in_name = CLASS_IN_NAME.search(path.name)
    in_folder = LABELS.get(path.parent.name)
    label = LABELS.get(in_name["label"]) if in_name else in_folder
    if in_folder is not None and label != in_folder:
        label = None
    if idc_name:
        return PatchFacts(idc_name["patient"], label, int(idc_name["x"]), int(idc_name["y"]))
    patient = path.parent.parent.name if in_folder is not None else ""
    # In a built data set the folder two levels up is the split.
    return PatchFacts("" if patient in SPLITS else patient, label, None, None)


def check_image(data: bytes, *, min_side: int, max_pixels: int) -> tuple[int, int]:
    """Gives width and height of a whole 8-bit PNG or JPEG; raises ExcludedError for all else."""
    if not data:
        raise ExcludedError("empty file", "0 bytes")
    is_png = data.startswith(PNG_SIGNATURE)
    if not is_png and not data.startswith(JPEG_SIGNATURE):
        raise ExcludedError("not a PNG or JPEG image", f"starts with {data[:8]!r}")
    if (PNG_END if is_png else JPEG_END) not in data:
        raise ExcludedError("truncated image", f"{len(data)} bytes")
    try:
        # Not Image.open: it has a limit of pixels of its own, for the whole process.
        image = (PngImageFile if is_png else JpegImageFile)(io.BytesIO(data))
        width, height = image.size
        if min(width, height) < min_side:
            raise ExcludedError(f"side under {min_side} pixels", f"{width} x {height}")
        if width * height > max_pixels:
            raise ExcludedError(f"more than {max_pixels:,} pixels", f"{width} x {height}")
        if is_png and data[24] > 8:
            raise ExcludedError("not 8 bits a channel", f"{data[24]} bits")
        if image.mode == "CMYK":
            raise ExcludedError("CMYK image", "4 channels")
        if is_png:
            image.verify()  # The checksums.
        else:  # TensorFlow alone stops at a marker amid the data.
            assert image.fp is not None
            marker = JPEG_MARKER.search(data, image.fp.tell())  # Pillow has read up to the data.
            if marker is None or marker[0] not in JPEG_AFTER_SCAN:
                raise ExcludedError("damaged image", "a marker amid the picture data")
        pixels = _decode(data)  # By libpng, as in TensorFlow: Pillow's own reader takes more.
    except ExcludedError:
        raise
    except Exception as error:  # Pillow raises whatever its parsing ends in.
        raise ExcludedError("damaged image", f"{type(error).__name__}: {error}") from error
    if pixels is None or pixels.shape != (height, width, 3):
        raise ExcludedError("damaged image", "OpenCV cannot decode it")
    return width, height


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Reads a patch that was checked before: red, green, blue, uint8, shape (height, width, 3)."""
    pixels = _decode(path.read_bytes())
    if pixels is None:
        raise ExcludedError("vanished or changed meanwhile", str(path))
    return pixels[..., ::-1]


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    """Decodes an image: blue, green, red; None or an error of OpenCV where it cannot."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[return-value]
