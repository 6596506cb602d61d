"""What training runs on: every GPU of the machine, or else the CPU."""

import tensorflow as tf

from cancernet.cli import InputError

# The first GPUs with units for float16 products (NVIDIA's "compute capability" of Volta, 2017).
HALF_PRECISION_CAPABILITY = (7, 0)

PRECISIONS = ("auto", "float32", "mixed")


def strategy() -> tf.distribute.Strategy:
    """Gives the strategy under which to build, train and score: all GPUs, or the one CPU."""
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    return tf.distribute.get_strategy()


def mixed_precision(precision: str) -> bool:
    """Says whether to compute in float16 and float32 mixed.

    Args:
        precision: "float32", "mixed", or "auto": mixed where every GPU has the units for it.

    Raises:
        InputError: `precision` is anything else.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"PRECISION is {precision!r}: expected one of {', '.join(PRECISIONS)}. "
            "Change it in cancernet/config.py."
        )
    if precision != "auto":
        return precision == "mixed"
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in gpus
    ]
    return bool(gpus) and min(capabilities) >= HALF_PRECISION_CAPABILITY
