"""The metrics of splits and baselines, under the names that metrics.json has, and notes on them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cancernet.data.dataset import Dataset, Split
from cancernet.evaluation.baselines import WHAT, WHY_NONE
from cancernet.evaluation.calibration import NO_LINE, Decision, cox_line, fit_decision
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

AT = ("at_0.5", "at_validation_threshold")

FEWEST_PATIENTS = 10  # With fewer the percentiles are those of a handful, and far too narrow.
FEWEST_PATCHES = 100 * BINS  # Even with so many chance makes a calibration error of some 0.03.


@dataclass(frozen=True)
class Scored:
    """One classifier's metrics on one split, notes on them, and the metrics in each resample."""

    metrics: dict[str, Any]
    notes: list[str]
    samples: dict[str, Any] | None


def score(split: Split, scores: Scores, threshold: float, config: Mapping[str, Any]) -> Scored:
    """Computes the metrics of one classifier's raw scores, with intervals by bootstrap."""
    labels, patients = split.labels, split.patients
    metrics = {
        "patients": len(set(patients)),
        "patches": len(split),
        "prevalence": float(np.mean(labels == 1)),
        **_measure(labels, scores, threshold),
    }
    samples = None
    if metrics["patients"] >= FEWEST_PATIENTS:
        drawn = draw(patients, resamples=config["RESAMPLES"], seed=config["SEED"])
        samples = _measure(labels, scores, threshold, drawn)
    metrics["ci95"] = samples and _intervals(samples)
    metrics["per_patient"] = per_patient(labels, scores.raw, patients, threshold=threshold)
    return Scored(metrics, list(_notes(metrics)), samples)


def score_network(
    split: Split, scores: Scores, decision: Decision, config: Mapping[str, Any]
) -> Scored:
    """Scores the network: all patches, and those that have neighbours alone and in context."""
    found = score(split, scores, decision.threshold, config)
    metrics = found.metrics | dict.fromkeys(("alone", "in_context", "foci"))
    notes = [*_one_class(metrics), *found.notes]
    there = np.flatnonzero(np.isfinite(scores.in_context))
    if decision.context and len(there):
        part, own = replace(split, rows=[split.rows[index] for index in there]), scores[there]
        thresholds = (decision.threshold, decision.context.threshold)
        alone = score(part, own, thresholds[0], config)
        around = score(part, Scores(*[own.in_context] * 3), thresholds[1], config)
        predicted = (own.raw >= thresholds[0], own.in_context >= thresholds[1])
        metrics |= {"alone": alone.metrics, "in_context": around.metrics}
        metrics["foci"] = foci(Grid.of_split(part), part.labels, *predicted)
        for note in dict.fromkeys([*alone.notes, *around.notes]):
            if note not in notes:
                of = ["alone"] * (note in alone.notes) + ["in_context"] * (note in around.notes)
                notes.append(f"{', '.join(of)}: {note}")
    elif decision.context:
        notes.append("alone, in_context, foci: no patch has a neighbour on its slide")
    return Scored(metrics, [f"{split.name}: {note}" for note in notes], found.samples)


def score_baseline(
    name: str,
    data: Dataset,
    probabilities: Mapping[str, Probabilities] | None,
    network: Scored,
    config: Mapping[str, Any],
) -> tuple[dict[str, Any] | None, list[str]]:
    """Scores a baseline of that name on `data.judged`, with a threshold of its own.

    Returns:
        The metrics, None without probabilities, with "network_lead": the difference of ROC AUC
        over the same resamples; and notes, but for those that the network's metrics have as well.
    """
    if probabilities is None:
        return None, [f"baseline {name}: {WHY_NONE[name]}"]
    judged, labels, measure = data.judged, data.validation.labels, config["THRESHOLD_MEASURE"]
    fitted, notes = fit_decision(labels, probabilities["validation"], measure=measure)
    scores = Scores.of(judged, probabilities[judged.name], fitted)
    found = score(judged, scores, fitted.threshold, config)
    notes += [note for note in found.notes if f"{judged.name}: {note}" not in network.notes]
    lead = None
    if (area := found.metrics["roc_auc"]) is not None:
        lead = {"roc_auc": network.metrics["roc_auc"] - area, "ci95": None}
        if network.samples and found.samples:
            lead["ci95"] = interval(network.samples["roc_auc"] - found.samples["roc_auc"])
    metrics = {"split": judged.name, **found.metrics, "network_lead": lead}
    del metrics["per_patient"]
    notes = [f"baseline {name}: {note}" for note in notes]
    return metrics, notes + [f"{judged.name}: {note}" for note in _verdict(name, metrics)]


def _measure(
    labels: Labels, scores: Scores, threshold: float, weights: Weights | None = None
) -> dict[str, Any]:
    """Computes the metrics of the split itself or, those that have intervals, of resamples."""
    metrics: dict[str, Any] = {}
    for at, least in zip(AT, (0.5, threshold), strict=True):
        counts = confusion(labels, scores.raw, threshold=least, weights=weights)
        head = {"threshold": least, "confusion_matrix": asdict(counts)} if weights is None else {}
        metrics[at] = head | counts.rates()
    metrics["roc_auc"], metrics["average_precision"] = areas(labels, scores.raw, weights)
    calibration = {}
    for kind, values in (("raw", scores.raw), ("recalibrated", scores.calibrated)):
        calibration[kind] = {
            "brier": brier(labels, values, weights),
            "ece": expected_calibration_error(labels, values, weights),
        }
        if weights is None:
            line = cox_line(labels, values)
            calibration[kind] |= asdict(line) if line else {"slope": None, "intercept": None}
    return metrics | {"brier": calibration["raw"]["brier"], "calibration": calibration}


def _intervals(samples: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _intervals(values) if isinstance(values, dict) else interval(values)
        for name, values in samples.items()
    }


def pick(metrics: Mapping[str, Any], *names: str) -> tuple[Any, Any]:
    """Finds a metric and its 95 % interval, None where it has none, by names from outside in."""
    value, ends = metrics, metrics["ci95"]
    for name in names:
        value, ends = value[name], ends and ends.get(name)
    return value, ends


def _notes(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Says of each metric that is None why it is, and what must be read with caution."""
    patients, patches = metrics["patients"], metrics["patches"]
    for at in AT:
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
    if metrics["ci95"] is None:
        yield f"no intervals (ci95): they take {FEWEST_PATIENTS} patients, found {patients}"
    if single := sum(row["roc_auc"] is None for row in metrics["per_patient"]):
        yield (
            "per_patient is null where a patient has patches of one class alone, as "
            f"{single} of {patients} have"
        )


def _one_class(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Says where the network predicts the same for all: it has learnt nothing that shows there."""
    for missing, predicted in (("npv", "malignant"), ("ppv", "benign")):
        if at := next((at for at in AT if metrics[at][missing] is None), None):
            yield (
                f"THE NETWORK PREDICTS ONE CLASS ONLY {at.replace('_', ' ')}: all "
                f"{metrics['patches']:,} patches are predicted {predicted}"
            )


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
