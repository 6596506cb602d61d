"""What a patch file is: its name parsed, its bytes checked."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cancernet.data.splitting import SPLITS

# The side of an IDC patch in pixels; patches at a slide's right and lower edges are smaller.
PATCH_SIDE = 50

LABELS = {"0": 0, "1": 1}
OTHER_CLASS = "class folder other than 0 or 1"

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


# --- Names ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatchFacts:
    """What the path of a patch from anywhere tells; None or empty where it does not."""

    patient: str  # The patient's number, or the name of the patient's folder.
    label: int | None  # 0 benign, 1 malignant; None, too, where name and folder contradict.
    x: int | None  # Left edge on the slide, in pixels.
    y: int | None  # Upper edge.


@dataclass(frozen=True)
class PatchName(PatchFacts):
    """What the path of a patch in the original directory tells: patient and label in any case."""

    label: int


class Layout:
    """Which folder, or part of a file's name, is the patient and which the class.

    Its text has a part for each of the last folders of a path and one for the file's name, such as
    "patient/slide/class/file". Words other than "patient" and "class" stand for anything, and such
    a folder may be missing, first the one nearest to the file, or a folder's last word. What is
    between the words of a part, as in "class/patient_file", stands for itself. Several patient
    words make one patient together.
    """

    def __init__(self, text: str) -> None:
        """Takes a text that the rule of LAYOUT holds for."""
        self.text = text
        parts = text.split("/")
        self._parts = [
            (re.findall(WORD, part), _pattern(part, is_folder=place < len(parts)))
            for place, part in enumerate(parts, start=1)
        ]

    def read(self, source: str) -> tuple[str, str]:
        """Reads patient and class from a path; empty where it does not have them."""
        pieces, parts = source.split("/"), self._parts
        for part in reversed(self._parts[:-1]):
            if len(parts) > len(pieces) and {"patient", "class"}.isdisjoint(part[0]):
                parts = [other for other in parts if other is not part]
        length = min(len(parts), len(pieces))
        found: dict[str, list[str]] = {"patient": [], "class": []}
        for (words, pattern), piece in zip(parts[-length:], pieces[-length:], strict=True):
            match = pattern.fullmatch(piece)
            for word, value in zip(words, match.groups() if match else (), strict=False):
                found.setdefault(word, []).append(value)
        return "_".join(found["patient"]), "".join(found["class"])

    def above(self, source: str) -> list[str]:
        """Gives the folders above those that the layout speaks of."""
        pieces = source.split("/")
        return pieces[: max(0, len(pieces) - len(self._parts))]


WORD = "[a-z0-9]+"


def _pattern(part: str, *, is_folder: bool) -> re.Pattern[str]:
    amid = "([01])" if part != "class" else "(.+)"  # A class folder is named where it is another.
    text = re.sub(WORD, lambda word: amid if word[0] == "class" else "(.+?)", re.escape(part))
    if is_folder and not part.endswith(("patient", "class")):  # The last word may be missing.
        text = re.sub(r"\\?[-_ .]\(\.\+\?\)$", r"(?:\g<0>)?", text)
    return re.compile(text, re.DOTALL)


LAYOUT = Layout("patient/class/file")


def layout_options(folders: Sequence[str], below: Sequence[str]) -> str:
    """Lists the layouts in which one of several folders is the patient, and `below` those below."""
    has_class = "class" not in below  # Then one of the folders is the class.
    words = ["class" if has_class and name in LABELS else "folder" for name in folders]
    return ", ".join(
        f"--layout {'/'.join([*words[:place], 'patient', *words[place + 1 :], *below])} "
        f"if it is {name!r}"
        for place, name in enumerate(folders)
        if words[place] == "folder"
    )


def parse_source(source: str, layout: Layout = LAYOUT) -> PatchName:
    """Reads patient, label and position from a path, or raises ExcludedError for what is amiss."""
    parts = source.split("/")
    for part in parts:
        if part.startswith(".") or part == "__MACOSX":
            raise ExcludedError("hidden or macOS file", part)
    in_folder, label = layout.read(source)
    if label not in LABELS:
        raise ExcludedError(OTHER_CLASS, label or "no folder")
    in_name = CLASS_IN_NAME.search(parts[-1])
    if in_name and in_name["label"] != label:
        raise ExcludedError("label mismatch", f"folder {label}, file name {in_name['label']}")
    idc_name = IDC_NAME.match(parts[-1])
    if idc_name is None:
        if not in_folder:
            raise ExcludedError("no patient", f"expected {layout.text}")
        return PatchName(in_folder, LABELS[label], None, None)
    patient = idc_name["patient"]
    if IDC_PATIENT.fullmatch(in_folder) and in_folder != patient:
        raise ExcludedError("patient mismatch", f"folder {in_folder}, file name {patient}")
    return PatchName(patient, LABELS[label], int(idc_name["x"]), int(idc_name["y"]))


def read_facts(path: Path) -> PatchFacts:
    """Reads what there is of patient, label and position; unlike `parse_source`, needs none."""
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


# --- Bytes ---------------------------------------------------------------------------------------


def check_image(data: bytes, *, min_side: int, max_pixels: int) -> tuple[int, int]:
    """Gives width and height of a whole 8-bit PNG or JPEG; raises ExcludedError for all else.

    The header is checked before anything is decoded; what the file is called is of no account.
    """
    if not data:
        raise ExcludedError("empty file", "0 bytes")
    kind: type[PngImageFile | JpegImageFile]
    if data.startswith(PNG_SIGNATURE):
        kind, end = PngImageFile, PNG_END
    elif data.startswith(JPEG_SIGNATURE):
        kind, end = JpegImageFile, JPEG_END
    else:
        raise ExcludedError("not a PNG or JPEG image", f"starts with {data[:8]!r}")
    if end not in data:
        raise ExcludedError("truncated image", f"{len(data)} bytes")
    try:
        # Not Image.open: it has a limit of pixels of its own, for the whole process.
        image = kind(io.BytesIO(data))
        width, height = image.size
        if min(width, height) < min_side:
            raise ExcludedError(f"side under {min_side} pixels", f"{width} x {height}")
        if width * height > max_pixels:
            raise ExcludedError(f"more than {max_pixels:,} pixels", f"{width} x {height}")
        if isinstance(image, PngImageFile):
            _check_png(image, data)
        else:
            _check_jpeg(image, data)
    except ExcludedError:
        raise
    except Exception as error:  # Pillow raises whatever its parsing ends in.
        raise ExcludedError("damaged image", f"{type(error).__name__}: {error}") from error
    return width, height


def _check_png(image: PngImageFile, data: bytes) -> None:
    """Reads a PNG to its end, as TensorFlow will."""
    if data[12:16] != b"IHDR":
        raise ExcludedError("damaged image", "its header is not its first chunk")
    if data[24] > 8:
        raise ExcludedError("not 8 bits a channel", f"{data[24]} bits")
    if b"acTL" in data[: data.find(b"IDAT")]:
        raise ExcludedError("animated image", "animation control chunk")
    width, height = image.size
    image.verify()  # The checksums.
    pixels = _decode(data)  # By libpng, as in TensorFlow: Pillow's own reader takes more.
    if pixels is None or pixels.shape != (height, width, 3):
        raise ExcludedError("damaged image", "OpenCV cannot decode it")


def _check_jpeg(image: JpegImageFile, data: bytes) -> None:
    """Reads a JPEG to its end. Damage that changes pixels alone goes unseen: no checksum tells."""
    if image.mode == "CMYK":
        raise ExcludedError("CMYK image", f"{image.layers} channels")
    assert image.fp is not None
    # Pillow has read to where the data begin. TensorFlow alone stops at a marker amid them.
    marker = JPEG_MARKER.search(data, image.fp.tell())
    if marker is None or marker[0] not in JPEG_AFTER_SCAN:
        raise ExcludedError("damaged image", "a marker that has no place in the picture data")
    image.load()


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Reads a patch that was checked before: red, green, blue, uint8, shape (height, width, 3)."""
    pixels = _decode(path.read_bytes())
    if pixels is None:
        raise ExcludedError("vanished or changed meanwhile", str(path))
    return pixels[..., ::-1]


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    """Decodes an image: blue, green, red; None or an error of OpenCV where it cannot."""
    return cv2.imdecode(  # type: ignore[return-value]
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
