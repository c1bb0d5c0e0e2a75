"""What each number means, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable

EXACT = {
    "original": ("original", "The model before unlearning; its gap is what doing nothing gives."),
    "oracle": ("oracle", "The model retrained without the forget set by the original's own recipe: the ground truth of unlearning."),
    "avg_gap": ("Gap", "Mean of the distances |metric − metric of the oracle of the same seeds| over the metrics named under the table."),
    "gap_of_means": ("Gap of means", "The same distances between means over seeds, as papers report it; never larger than Gap."),
    "UA": ("UA", "Unlearning accuracy: 100 − accuracy on the forget set, in percent."),
    "RA": ("RA", "Retain accuracy: accuracy on the training samples that stay, in percent."),
    "TA": ("TA", "Test accuracy: accuracy on held-out samples (without a class that is forgotten as a whole), in percent."),
    "MIA": ("MIA", "Share of the forget set that an SVC attack on the confidence of the true class calls non-members, in percent."),
    "MIA/loss_auc": ("MIA loss_auc", "Area under the ROC curve of the loss as a score of membership, forget against held-out; at 0.5 "
                                     "the two cannot be told apart."),
    "MIA/error_member": ("MIA member", "Share of the forget set that an SVC attack on the absolute error calls members, in percent."),
    "ToW": ("ToW", "Tug of war: the product over forget, retain and test of 1 − |difference of accuracy to the oracle|; 1 at the oracle."),
    "activation_distance": ("activation_distance", "Mean Euclidean distance between the class probabilities of model and oracle on the "
                                                   "forget set."),
    "JS": ("JS", "Jensen–Shannon divergence between the class probabilities of model and oracle on the forget set, in nats."),
    "completeness": ("completeness", "Share of the forget set on which model and oracle decide alike, in percent."),
    "wasserstein": ("wasserstein", "Wasserstein-1 distance between the predictions of model and oracle on the forget set."),
    "confidence": ("confidence", "Probability (softmax) that the model gives to the true class."),
    "seconds": ("seconds", "Wall-clock time of unlearning: masks, statistics, training and edits; evaluation and search are not in it."),
    "peak_memory": ("peak_memory", "Largest memory in use during the run, in MiB (allocated on a GPU; resident on a CPU)."),
    "trainable": ("trainable", "Number of weights that the method was allowed to move."),
    "moved": ("moved", "Number of weights that differ after the run."),
}
"""By metric: the name that tables show, and the sentence."""

FAMILIES = {
    "MIA/": ("MIA …", "As MIA, by an attack on that feature instead of the confidence."),
    "gap/": ("gap …", "|metric − metric of the oracle of the same seeds|."),
    "accuracy/": ("accuracy …", "Accuracy on another part of the data, in percent."),
    "MAE/": ("MAE …", "Mean absolute error on that part, in the target's units."),
    "RMSE/": ("RMSE …", "Root mean squared error on that part, in the target's units."),
    "seconds/": ("seconds …", "The part of seconds that this stage took."),
}
"""By the first part of the metric's name."""


def definitions(metrics: Iterable[str]) -> list[tuple[str, str]]:
    """Shown name and sentence of what is known among `metrics`, each family once, in a fixed order."""
    metrics = set(metrics)
    families = [entry for prefix, entry in FAMILIES.items() if any(m.startswith(prefix) and m not in EXACT for m in metrics)]
    return [entry for metric, entry in EXACT.items() if metric in metrics] + families
