"""Times the figures with their intervals on made-up patches: python benchmarks/bootstrap_time.py.

The defaults are the size of the testing split of the whole public data set.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from cancernet.evaluation import scorecard


def main() -> None:
    """Times one split's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=55_000)
    parser.add_argument("--patients", type=int, default=56)
    parser.add_argument("--resamples", type=int, default=2_000)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    owners = generator.integers(arguments.patients, size=arguments.patches)
    probabilities = generator.random(arguments.patches, dtype=np.float32)
    labels = (generator.random(arguments.patches) < probabilities).astype(int)
    fitted, _ = scorecard.fit(labels, probabilities, measure="balanced_accuracy")
    began = time.perf_counter()
    scorecard.score(
        labels,
        probabilities,
        [str(owner) for owner in owners],
        fitted=fitted,
        resamples=arguments.resamples,
        seed=0,
    )
    print(
        f"{arguments.patches:,} patches of {arguments.patients:,} patients, "
        f"{arguments.resamples:,} resamples: {time.perf_counter() - began:.1f} s"
    )


if __name__ == "__main__":
    main()
