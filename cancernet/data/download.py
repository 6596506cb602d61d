"""The public data set, fetched from Kaggle."""

from pathlib import Path

from cancernet.cli import InputError

HANDLE = "paultimothymooney/breast-histopathology-images"


def fetch() -> Path:
    """Downloads the public IDC data set (1.6 GB), or finds it where an earlier call left it.

    Returns:
        The directory in kagglehub's cache that holds it; nothing is copied out of there.

    Raises:
        InputError: It cannot be had: no network, a full disk, Kaggle refuses.
    """
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(HANDLE))
    # Whatever kagglehub, requests or the disk raise, the user can do the same about it.
    except Exception as error:
        raise InputError(
            f"Could not download {HANDLE} ({type(error).__name__}: {error}). Check the network and "
            "try again, or download it by hand from https://www.kaggle.com/datasets/"
            f"{HANDLE} and unpack it into datasets/original, or try things out with --sample."
        ) from error
