"""What a patch file is: its name parsed, its bytes checked."""

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# The side of an IDC patch in pixels; patches at a slide's right and lower edges are smaller.
PATCH_SIDE = 50

LABELS = {"0": 0, "1": 1}
SPLIT_FOLDERS = ("training", "validation", "testing")

IDC_NAME = re.compile(
    # What stands behind, as in "..._class0 (1).png" or "..._class0_copy.png", changes no fact.
    r"(?P<patient>[0-9]+)_idx5_x(?P<x>[0-9]+)_y(?P<y>[0-9]+)_class[0-9]+(?![0-9])",
    re.IGNORECASE,
)
CLASS_IN_NAME = re.compile(r"_class(?P<label>[0-9]+)")
IDC_PATIENT = re.compile(r"[0-9]{4,5}")  # As all 281 numbers of the published table are.

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of its header: 8 bits, red, green and blue, and the usual compression, filters and order of rows.
PLAIN_PNG = bytes((8, 2, 0, 0, 0))
JPEG_SIGNATURE = b"\xff\xd8\xff"
JPEG_END, JPEG_START_OF_SCAN = 0xD9, 0xDA
# Start-of-frame markers (ITU-T T.81, table B.1); 0xC4, 0xC8 and 0xCC mark other things.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# All markers of segments: frames, tables, scans, what applications keep for themselves, comments.
# The frames that have more than one scan a channel.
JPEG_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# All markers of segments: frames, tables, scans, what applications keep for themselves, comments.
JPEG_SEGMENTS = JPEG_FRAMES | {0xC4, 0xCC, *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE}
# In a scan 0xFF is followed by 0x00, a restart marker or itself: anything else is a marker.
JPEG_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class ExcludedError(Exception):
    """A file that the data set leaves out.

    Attributes:
        reason: A short phrase, the same for all files left out for it.
        detail: What was found in this file.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keeps the reason and the detail."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class PatchName:
    """What a patch's path tells.

    Attributes:
        patient: The patient's number, or the name of the patient's folder.
        label: 0 benign, 1 malignant.
        x: Left edge on the slide in pixels; None where the name does not tell.
        y: Upper edge on the slide in pixels; None where the name does not tell.
    """

    patient: str
    label: int
    x: int | None
    y: int | None


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
    class_folder = folders[-1] if folders else ""
    if class_folder not in LABELS:
        raise ExcludedError("class folder other than 0 or 1", class_folder or "no folder")
    patient_folder = folders[-2] if len(folders) > 1 else ""

    label_in_name = CLASS_IN_NAME.search(file_name)
    if label_in_name and label_in_name["label"] != class_folder:
        raise ExcludedError(
            "label mismatch", f"folder {class_folder}, file name {label_in_name['label']}"
        )
    idc_name = IDC_NAME.match(file_name)
    if idc_name is None:
        if not patient_folder:
            raise ExcludedError("no patient", "expected <patient>/<class>/<file>")
        return PatchName(patient_folder, LABELS[class_folder], None, None)
    patient = idc_name["patient"]
    if IDC_PATIENT.fullmatch(patient_folder) and patient_folder != patient:
        raise ExcludedError("patient mismatch", f"folder {patient_folder}, file name {patient}")
    return PatchName(patient, LABELS[class_folder], int(idc_name["x"]), int(idc_name["y"]))


@dataclass(frozen=True)
class PatchFacts:
    """What the path of a patch from anywhere tells; None or empty where it does not.

    Attributes:
        patient: As in `PatchName`.
        label: 0 benign, 1 malignant; None, too, where name and folder contradict each other.
        x: As in `PatchName`.
        y: As in `PatchName`.
    """

    patient: str
    label: int | None
    x: int | None
    y: int | None


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
    return PatchFacts("" if patient in SPLIT_FOLDERS else patient, label, None, None)


def check_image(data: bytes, *, min_side: int, max_pixels: int) -> tuple[int, int]:
    """Makes sure that a file is a whole 8-bit PNG or JPEG, whatever its name says.

    OpenCV alone would not do: it reads formats that TensorFlow does not, and fills up the rest of
    a truncated file without a word. Damage inside the picture data of a JPEG, which has no
    checksums, may still go unseen.

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
    try:
        if data.startswith(PNG_SIGNATURE):
            width, height = _png_size(data)
        elif data.startswith(JPEG_SIGNATURE):
            width, height = _jpeg_size(data)
        else:
            raise ExcludedError("not a PNG or JPEG image", f"starts with {data[:8]!r}")
    except (struct.error, IndexError) as error:
        raise ExcludedError("truncated image", f"{len(data)} bytes") from error
    if min(width, height) < min_side:
        raise ExcludedError(f"side under {min_side} pixels", f"{width} x {height}")
    if width * height > max_pixels:
        raise ExcludedError(f"more than {max_pixels:,} pixels", f"{width} x {height}")
    if not _is_plain_and_whole(data, width, height):
        _decode(data, width, height)
    return width, height


def _is_plain_and_whole(data: bytes, width: int, height: int) -> bool:
    """Whether a file is a PNG as IDC's patches are, RGB in one piece, and unpacks to all its rows.

    Its checksums are right by now, so nothing else can be wrong with it, and it takes half the time
    of decoding. False says nothing: then it has to be decoded.
    """
    if not data.startswith(PNG_SIGNATURE) or data[24:29] != PLAIN_PNG:
        return False
    position = 33  # Behind the header.
    if data[37:41] == b"tIME":
        position += 12 + int.from_bytes(data[33:37])
    length, kind = struct.unpack_from(">I4s", data, position)
    end = position + 12 + length
    if kind != b"IDAT" or data[end + 4 : end + 8] != b"IEND":
        return False
    row = 1 + 3 * width  # Each begins with the number of its filter, 0 to 4.
    unpacking = zlib.decompressobj()
    try:
        rows = unpacking.decompress(memoryview(data)[position + 8 : end - 4], row * height + 1)
    except zlib.error:
        return False
    return unpacking.eof and len(rows) == row * height and max(rows[::row]) <= 4


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Reads a patch that was checked before: red, green, blue, uint8, shape (height, width, 3)."""
    pixels = _pixels(path.read_bytes())
    if pixels is None:
        raise ExcludedError("vanished or changed meanwhile", str(path))
    return pixels[..., ::-1]


def _pixels(data: bytes) -> NDArray[Any] | None:
    """Decodes an image: blue, green, red, uint8; None or an error of OpenCV where it cannot."""
    return cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )


def _decode(data: bytes, width: int, height: int) -> None:
    try:
        pixels = _pixels(data)
    except cv2.error as error:
        raise ExcludedError("unreadable image", str(error.err)) from error
    if pixels is None or pixels.shape != (height, width, 3):
        raise ExcludedError("unreadable image", "OpenCV cannot decode it")


def _png_size(data: bytes) -> tuple[int, int]:
    """Walks the chunks of a PNG (W3C PNG specification, section 5) and checks each checksum."""
    view = memoryview(data)
    position = len(PNG_SIGNATURE)
    width = height = 0
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        body, end = position + 8, position + 12 + length
        if end > len(data):
            raise ExcludedError("truncated image", f"{len(data)} bytes, {end} or more expected")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise ExcludedError("damaged image", f"checksum of chunk {kind!r}")
        if kind == b"IHDR":
            width, height, bits = struct.unpack_from(">IIB", data, body)
            if bits > 8:
                raise ExcludedError("not 8 bits a channel", f"{bits} bits")
        elif kind == b"acTL":
            raise ExcludedError("animated image", "animation control chunk")
        position = end
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walks the segments of a JPEG (ITU-T T.81, annex B) to its end.

    A marker in the middle of a scan that has no place there is damage that OpenCV shrugs at and
    TensorFlow stops at.
    """
    position = 2
    width = height = channels = scanned = 0
    progressive = False
    while True:
        start, marker = data[position], data[position + 1]
        if start != 0xFF:
            raise ExcludedError("damaged image", "segment without a marker")
        if marker == JPEG_END:
            return width, height
        if marker == 0xFF:  # Fill byte.
            position += 1
            continue
        if marker not in JPEG_SEGMENTS:
            raise ExcludedError("damaged image", f"unknown marker 0x{marker:02x}")
        if marker in JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            if bits != 8:
                raise ExcludedError("not 8 bits a channel", f"{bits} bits")
            if channels not in (1, 3):
                raise ExcludedError("CMYK image", f"{channels} channels")
            progressive = marker in JPEG_PROGRESSIVE
        length, items = struct.unpack_from(">HB", data, position + 2)
        position += 2 + length
        if marker == JPEG_START_OF_SCAN:
            scanned += items
            if scanned > channels and not progressive:
                raise ExcludedError("damaged image", "more scans than channels")
            found = JPEG_NEXT_MARKER.search(data, position)
            if found is None:
                raise ExcludedError("truncated image", f"{len(data)} bytes, no end marker")
            position = found.start()
