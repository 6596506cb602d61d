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

from cancernet.data.splitting import SPLITS

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
    """A file that the data set leaves out.

    Attributes:
        reason: A short phrase, the same for all files left out for it.
        detail: What was found in this file.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keeps the reason and the detail."""
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


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


def parse_source(source: str) -> PatchName:
    """Reads patient, label and position from a path `<patient>/<class>/<file>`.

    Args:
        source: Path below the original directory, with forward slashes. More folders may stand
            before the patient's.

    Raises:
        ExcludedError: A hidden file, a class folder other than 0 and 1, a label or a patient in
            the name that contradicts the folders, or no patient at all.
    """
    *folders, file_name = source.split("/")
    for part in (*folders, file_name):
        if part.startswith(".") or part == "__MACOSX":
            raise ExcludedError("hidden or macOS file", part)
    patient_folder, class_folder = ["", "", *folders][-2:]
    if class_folder not in LABELS:
        raise ExcludedError("class folder other than 0 or 1", class_folder or "no folder")
    in_name = CLASS_IN_NAME.search(file_name)
    if in_name and in_name["label"] != class_folder:
        detail = f"folder {class_folder}, file name {in_name['label']}"
        raise ExcludedError("label mismatch", detail)
    idc_name = IDC_NAME.match(file_name)
    if idc_name is None:
        if not patient_folder:
            raise ExcludedError("no patient", "expected <patient>/<class>/<file>")
        return PatchName(patient_folder, LABELS[class_folder], None, None)
    patient = idc_name["patient"]
    if IDC_PATIENT.fullmatch(patient_folder) and patient_folder != patient:
        raise ExcludedError("patient mismatch", f"folder {patient_folder}, file name {patient}")
    return PatchName(patient, LABELS[class_folder], int(idc_name["x"]), int(idc_name["y"]))


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


def check_image(data: bytes, *, min_side: int, max_pixels: int) -> tuple[int, int]:
    """Makes sure that a file is a whole 8-bit PNG or JPEG, whatever its name says.

    Args:
        data: The file's bytes.
        min_side: The shortest side allowed, in pixels.
        max_pixels: The most pixels allowed; checked before anything is decoded.

    Returns:
        Width and height in pixels.

    Raises:
        ExcludedError: The file cannot be used.
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
