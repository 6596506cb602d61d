"""Trains and scores a fold as train_model.py does, but in memory. Loads TensorFlow."""

from collections.abc import Mapping

import keras

from cancernet import config
from cancernet.cancernet import CancerNet
from cancernet.data import pipeline
from cancernet.data.dataset import Split
from cancernet.data.pipeline import Reading
from cancernet.evaluation import calibration, metrics
from cancernet.evaluation.metrics import Probabilities
from cancernet.prediction import model as prediction
from cancernet.recipe import Recipe
from cancernet.training import callbacks, distribution, fused
from cancernet.training.run import Run

SIZE = (config.IMAGE_HEIGHT, config.IMAGE_WIDTH)


def train(recipe: Recipe, splits: Mapping[str, Split], *, seed: int) -> tuple[Run, keras.Model]:
    """Trains on one split and validates on another.

    Args:
        recipe: How to train.
        splits: "training" and "validation" among them.
        seed: Of weights, order and augmentation.

    Returns:
        The run, and the model with the weights of its best epoch.
    """
    training, validation = splits["training"], splits["validation"]
    reading = Reading(SIZE, recipe.batch_size)
    distribution.set_seed(seed, deterministic=True)
    network = CancerNet.build(config.IMAGE_WIDTH, config.IMAGE_HEIGHT, 3, 2)
    model = fused.fuse(network, dropout=recipe.dropout)
    model.compile(recipe.optimizer(), "categorical_crossentropy", metrics=["accuracy"])
    run = Run(None, epochs=recipe.epochs)
    validate = callbacks.Validate(
        run,
        recipe,
        pipeline.scoring_batches(validation.files, reading),
        validation.labels,
        pipeline.read_sample(training, recipe, reading, seed=seed),
    )
    model.fit(
        pipeline.training_batches(training, recipe, reading, seed=seed),
        epochs=recipe.epochs,
        steps_per_epoch=pipeline.steps_per_epoch(len(training), reading),
        class_weight=recipe.class_weight(training.labels),
        shuffle=False,  # The batches come shuffled.
        verbose=0,
        callbacks=[validate],
    )
    model.set_weights(run.best_weights)
    return run, model


def score(
    model: keras.Model, splits: Mapping[str, Split], *, averaged: bool
) -> dict[str, Probabilities]:
    """Scores validation and testing, by each patch's eight symmetries where `averaged`."""
    if averaged:
        model = prediction.averaged(model)
    reading = Reading(SIZE, config.BATCH_SIZE)
    return {
        name: distribution.predict(model, pipeline.scoring_batches(splits[name].files, reading))
        for name in ("validation", "testing")
    }


def measure(
    splits: Mapping[str, Split], probabilities: Mapping[str, Probabilities]
) -> dict[str, float | None]:
    """Measures on testing; threshold and recalibration are fitted on validation."""
    validation, testing = (probabilities[name] for name in ("validation", "testing"))
    fitted = splits["validation"].labels
    decision, _ = calibration.fit_decision(fitted, validation, measure="balanced_accuracy")
    labels = splits["testing"].labels
    chosen, at_half = (
        metrics.confusion(labels, testing, threshold=threshold).rates()
        for threshold in (decision.threshold, 0.5)
    )
    recalibrated = calibration.recalibrate(testing, decision.recalibration)
    return {
        "roc_auc": metrics.roc_auc(labels, testing),
        "balanced_accuracy": chosen["balanced_accuracy"],
        "balanced_accuracy_at_0.5": at_half["balanced_accuracy"],
        "ece": metrics.expected_calibration_error(labels, testing),
        "ece_recalibrated": metrics.expected_calibration_error(labels, recalibrated),
    }
