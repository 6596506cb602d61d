"""The metrics of every split and baseline, under the names that metrics.json has."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cancernet.data.dataset import Dataset, Split
from cancernet.evaluation.baselines import WHAT, WHY_NONE
from cancernet.evaluation.calibration import NO_LINE, Decision, cox_line, fit_decision, recalibrate
from cancernet.evaluation.context import Grid, Scores, foci
from cancernet.evaluation.metrics import (
    BINS,
    METRICS,
    Labels,
    Probabilities,
    Weights,
    areas,
    brier,
    confusion,
    draw,
    expected_calibration_error,
    interval,
    per_patient,
)

# With fewer the percentiles are those of a handful of patients, and far too narrow.
FEWEST_PATIENTS = 10

# A hundred patches per bin: chance alone still makes an error of some 0.03 of them.
FEWEST_PATCHES = 100 * BINS

# More resamples than this share without a metric are worth a note.
FEW = 0.05


@dataclass(frozen=True)
class Scored:
    """One classifier's metrics on one split, notes on them, and the metrics in each resample."""

    metrics: dict[str, Any]
    notes: list[str]
    samples: dict[str, Any] | None


def evaluate(
    data: Dataset,
    probabilities: Mapping[str, Probabilities],
    decision: Decision,
    baselines: Mapping[str, Mapping[str, Probabilities] | None],
    config: Mapping[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Scores network and baselines, given as to `report.make_metrics`.

    Returns:
        "testing", "validation" and "baselines" of metrics.json, and notes on them.
    """
    notes: list[str] = []
    metrics: dict[str, Any] = {"testing": None, "validation": None, "baselines": {}}
    scored: dict[str, Scored] = {}
    for split in (data.testing, data.validation):
        if not split:
            notes.append(f"{split.name}: not scored, this split of the data set is empty")
            continue
        own = probabilities[split.name]
        found = score(split, own, decision, config)
        around, more = score_in_context(split, own, decision, config)
        scored[split.name], metrics[split.name] = found, found.metrics | around
        said = [*_one_class(found.metrics), *found.notes]
        said += [note for note in more if note.partition(": ")[2] not in said]
        notes += [f"{split.name}: {note}" for note in said]
    judged = data.judged
    for name, scores in baselines.items():
        if scores is None:
            metrics["baselines"][name] = None
            notes.append(f"baseline {name}: {WHY_NONE[name]}")
            continue
        fitted, unfitted = fit_decision(
            data.validation.labels, scores["validation"], measure=config["THRESHOLD_MEASURE"]
        )
        found = score(judged, scores[judged.name], fitted, config)
        compared = compare(scored[judged.name], found)
        metrics["baselines"][name] = {"split": judged.name, **compared}
        # What is said of the network's metrics need not be said again.
        more = [*unfitted, *(note for note in found.notes if note not in scored[judged.name].notes)]
        notes += [f"baseline {name}: {note}" for note in more]
        notes += [f"{judged.name}: {note}" for note in _verdict(name, compared)]
    return metrics, notes


def score(
    split: Split, probabilities: Probabilities, decision: Decision, config: Mapping[str, Any]
) -> Scored:
    """Computes the metrics of one classifier, alone, on one split, with intervals by bootstrap."""
    labels = split.labels
    calibrated = recalibrate(probabilities, decision.recalibration)
    thresholds = {"at_0.5": 0.5, "at_validation_threshold": decision.threshold}
    metrics = {
        "patients": len(set(split.patients)),
        "patches": len(labels),
        "prevalence": float(np.mean(labels == 1)),
        **_measure(labels, probabilities, calibrated, thresholds),
    }
    samples = None
    if metrics["patients"] >= FEWEST_PATIENTS:
        drawn = draw(split.patients, resamples=config["RESAMPLES"], seed=config["SEED"])
        samples = _measure(labels, probabilities, calibrated, thresholds, drawn)
    metrics["ci95"] = samples and _intervals(samples)
    metrics["per_patient"] = per_patient(
        labels, probabilities, split.patients, threshold=decision.threshold
    )
    return Scored(metrics, list(_notes(metrics, samples)), samples)


def score_in_context(
    split: Split, probabilities: Probabilities, decision: Decision, config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Scores the patches that have neighbours, alone and in context.

    Returns:
        "alone", "in_context" and "foci" of a split's metrics, None where no patch is in context;
        and notes on them.
    """
    nothing = dict.fromkeys(("alone", "in_context", "foci"))
    if decision.context is None:
        return nothing, []  # The notes of the fit say why.
    in_context = Scores.of(split, probabilities, decision).in_context
    there = np.flatnonzero(np.isfinite(in_context))
    if not len(there):
        return nothing, ["alone, in_context, foci: no patch has a neighbour on its slide"]
    part = replace(split, rows=[split.rows[index] for index in there])
    alone = score(part, probabilities[there], decision, config)
    around = Decision(decision.context.threshold, None)
    found = score(part, in_context[there], around, config)
    rows = foci(
        Grid.of_split(part),
        part.labels,
        probabilities[there] >= decision.threshold,
        in_context[there] >= around.threshold,
    )
    notes: dict[str, list[str]] = {}
    for name, one in (("alone", alone), ("in_context", found)):
        for note in one.notes:
            notes.setdefault(note, []).append(name)
    metrics = {"alone": alone.metrics, "in_context": found.metrics, "foci": rows}
    return metrics, [f"{', '.join(names)}: {note}" for note, names in notes.items()]


def _measure(
    labels: Labels,
    probabilities: Probabilities,
    calibrated: Probabilities,
    thresholds: Mapping[str, float],
    weights: Weights | None = None,
) -> dict[str, Any]:
    """Computes the metrics of the split itself or, those that have intervals, of resamples."""
    metrics: dict[str, Any] = {}
    for at, threshold in thresholds.items():
        counts = confusion(labels, probabilities, threshold=threshold, weights=weights)
        metrics[at] = {name: getattr(counts, name) for name in METRICS}
        if weights is None:
            head = {"threshold": threshold, "confusion_matrix": asdict(counts)}
            metrics[at] = head | metrics[at]
    metrics["roc_auc"], metrics["average_precision"] = areas(labels, probabilities, weights)
    metrics |= {"brier": brier(labels, probabilities, weights), "calibration": {}}
    for kind, values in (("raw", probabilities), ("recalibrated", calibrated)):
        ece = expected_calibration_error(labels, values, weights)
        found = {"brier": brier(labels, values, weights), "ece": ece}
        if weights is None:
            line = cox_line(labels, values)
            found |= asdict(line) if line else {"slope": None, "intercept": None}
        metrics["calibration"][kind] = found
    return metrics


def _intervals(samples: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _intervals(values) if isinstance(values, dict) else interval(values)
        for name, values in samples.items()
    }


def _left_out(samples: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Names the metrics that more than a few resamples could not be used for."""
    for name, values in samples.items():
        if isinstance(values, dict):
            yield from _left_out(values, f" {name.replace('_', ' ')}")
        elif FEW < (share := np.mean(np.isnan(values))) < 1:
            yield f"{name}{where} ({share:.0%})"


def _notes(metrics: Mapping[str, Any], samples: Mapping[str, Any] | None) -> Iterator[str]:
    """Says of each metric that is None why it is, and what must be read with caution."""
    patients, patches = metrics["patients"], metrics["patches"]
    for at in ("at_0.5", "at_validation_threshold"):
        if missing := [name for name in METRICS if metrics[at][name] is None]:
            counts = metrics[at]["confusion_matrix"]
            yield (
                f"{', '.join(missing)} {at.replace('_', ' ')}: not defined with {counts['tn']} "
                f"true and {counts['fn']} false negatives, {counts['tp']} true and "
                f"{counts['fp']} false positives"
            )
    if metrics["roc_auc"] is None:
        yield "roc_auc, average_precision: not defined where a class is missing"
    if any(kind["slope"] is None for kind in metrics["calibration"].values()):
        yield (
            f"calibration slope, intercept: {NO_LINE}, and none is reported whose slope has a "
            "standard error above 1"
        )
    if patients < FEWEST_PATIENTS or patches < FEWEST_PATCHES:
        yield (
            "chance alone makes the expected calibration error too high with few patches "
            f"({patches:,}) or patients ({patients})"
        )
    if samples is None:
        yield f"no intervals (ci95): they take {FEWEST_PATIENTS} patients, found {patients}"
    elif left_out := ", ".join(_left_out(samples)):
        yield f"ci95 leaves out resamples where a metric is not defined: {left_out}"
    if single := sum(row["roc_auc"] is None for row in metrics["per_patient"]):
        yield (
            "per_patient is null where a patient has patches of one class alone, as "
            f"{single} of {patients} have"
        )


def _one_class(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Says where the network predicts the same for all: it has learnt nothing that shows there."""
    seen = []
    for name in ("at_0.5", "at_validation_threshold"):
        counts = metrics[name]["confusion_matrix"]
        for predicted, others in (("malignant", ("tn", "fn")), ("benign", ("tp", "fp"))):
            if counts not in seen and not any(counts[other] for other in others):
                yield (
                    f"THE NETWORK PREDICTS ONE CLASS ONLY {name.replace('_', ' ')}: "
                    f"all {metrics['patches']:,} patches are predicted {predicted}"
                )
        seen.append(counts)


def compare(network: Scored, baseline: Scored) -> dict[str, Any]:
    """Gives a baseline's metrics and `network_lead`, the AUC difference over the same resamples."""
    metrics = {name: value for name, value in baseline.metrics.items() if name != "per_patient"}
    difference = None
    if metrics["roc_auc"] is not None:
        difference = {"roc_auc": network.metrics["roc_auc"] - metrics["roc_auc"], "ci95": None}
        if network.samples and baseline.samples:
            difference["ci95"] = interval(network.samples["roc_auc"] - baseline.samples["roc_auc"])
    return metrics | {"network_lead": difference}


def _verdict(name: str, baseline: Mapping[str, Any]) -> Iterator[str]:
    """Says in words what a reader of the network's metrics must know of the baseline's."""
    difference = baseline["network_lead"]
    if difference is None:
        return
    reached = f"{WHAT[name]} reaches ROC AUC {baseline['roc_auc']:.3f}"
    network = f"the network's {baseline['roc_auc'] + difference['roc_auc']:.3f}"
    if difference["roc_auc"] <= 0:
        yield f"THE NETWORK DOES NOT BEAT A BASELINE: {reached}, {network}"
    elif difference["ci95"] and difference["ci95"][0] <= 0:
        low, high = difference["ci95"]
        yield (
            f"{reached}, {network}: the 95 % interval of the difference, {low:.3f} to {high:.3f}, "
            "holds 0, so the network may be no better"
        )
    elif name == "patient_identity":
        yield f"{reached}, which this split gives away to the network as well"
