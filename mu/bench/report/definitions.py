"""What each number means, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable

EXACT = {
    "original": ("original", "The model before unlearning; its gap is what doing nothing gives."),
    "oracle": (
        "oracle",
        "The model retrained without the forget set by the original's own recipe: the ground "
        "truth of unlearning.",
    ),
    "avg_gap": (
        "Gap",
        "Mean of the distances |metric − metric of the oracle of the same seeds| over the metrics "
        "named under the table.",
    ),
    "gap_of_means": (
        "Gap of means",
        "The same distances between means over seeds, as papers report it; never larger than Gap.",
    ),
    "start": ("original", "The model before unlearning."),
    "UA": ("UA", "Unlearning accuracy: 100 − accuracy on the forget set, in percent."),
    "RA": ("RA", "Retain accuracy: accuracy on the training samples that stay, in percent."),
    "TA": (
        "TA",
        "Test accuracy: accuracy on held-out samples (without a class that is forgotten as a "
        "whole), in percent.",
    ),
    "MIA": (
        "MIA",
        "Share of the forget set that an SVC attack on the confidence of the true class calls "
        "non-members, in percent.",
    ),
    "IRA": (
        "IRA",
        "In-domain retain accuracy: share of the images of other concepts of the same kind (the "
        "other objects, when an object was erased) in which the judge sees what was asked for, in "
        "percent; higher is better.",
    ),
    "CRA": (
        "CRA",
        "Cross-domain retain accuracy: the same for concepts of another kind (the styles, when an "
        "object was erased).",
    ),
    "FID": (
        "FID",
        "Fréchet inception distance: between features of the images of what stays and of real "
        "ones, or the original's, as said under the table; lower is better, and comparable only "
        "for the same features and number of images.",
    ),
    "KID": (
        "KID",
        "Kernel inception distance: squared maximum mean discrepancy between the same features; "
        "lower is better.",
    ),
    "CLIP": (
        "CLIP",
        "Mean cosine of CLIP's embeddings of image and prompt; higher is better, and comparable "
        "only for one CLIP model.",
    ),
    "pre_ASR": (
        "pre_ASR",
        "Share of the attacked prompts whose images show the erased concept without any attack, "
        "in percent; lower is better.",
    ),
    "ASR": (
        "ASR",
        "Attack success rate: share of these prompts for which the attack brings the concept "
        "back, in percent; lower is better.",
    ),
    "FQ": (
        "FQ",
        "Forget quality: p-value of the Kolmogorov–Smirnov test between the truth ratios of model "
        "and oracle on the forget set; near 1 the two cannot be told apart. The mean of p-values "
        "says little, so look at its logarithm too.",
    ),
    "log10_FQ": ("log10_FQ", "Decimal logarithm of the forget quality; 0 is the best."),
    "MU": (
        "MU",
        "Model utility: harmonic mean of probability, ROUGE-L recall and truth ratio over the "
        "sets that are to be kept, in [0, 1]; higher is better.",
    ),
    "ES": (
        "ES",
        "Extraction strength: longest share of an answer's end that the model says by itself once "
        "it is given the beginning, in [0, 1], on the forget set.",
    ),
    "EM": (
        "EM",
        "Exact memorisation: share of an answer's tokens that are the likeliest after the ones "
        "before them, in [0, 1], on the forget set.",
    ),
    "PrivLeak": (
        "PrivLeak",
        "Relative difference between the AUC of a min-k membership attack and the oracle's, in "
        "percent; 0 is the goal, −100 has forgotten nothing, positive has forgotten too much.",
    ),
    "memorisation": ("memorisation", "Score in [0, 1]: the less is known by heart, the higher."),
    "privacy": (
        "privacy",
        "Score in [0, 1]: how close the AUCs of four membership attacks are to the oracle's.",
    ),
    "utility": (
        "utility",
        "Model utility, as a share of the original's where that is known, in [0, 1].",
    ),
    "overall": ("overall", "Harmonic mean of memorisation, privacy and utility, in [0, 1]."),
    "selection": (
        "selection",
        "Harmonic mean of memorisation and utility, in [0, 1], by which settings are chosen.",
    ),
    "relearning": (
        "relearning",
        "Accuracy on withheld forget samples (share of likeliest tokens, for language models), in "
        "percent, after the model was fine-tuned on a few others; the oracle's own is the goal.",
    ),
    "quantisation": (
        "quantisation",
        "Accuracy on the forget set, in percent, after the weights were rounded to so few bits "
        "that most comes back; the oracle's own is the goal.",
    ),
    "UA/probability": (
        "UA probability",
        "Mean probability that the judge gives to what was erased, in percent.",
    ),
    "UA/entropy": (
        "UA entropy",
        "Mean entropy of the judge's probabilities on these images, in nats.",
    ),
    "MIA/loss_auc": (
        "MIA loss_auc",
        "Area under the ROC curve of the loss as a score of membership, forget against held-out; "
        "at 0.5 the two cannot be told apart.",
    ),
    "MIA/error_member": (
        "MIA member",
        "Share of the forget set that an SVC attack on the absolute error calls members, in "
        "percent.",
    ),
    "ToW": (
        "ToW",
        "Tug of war: the product over forget, retain and test of 1 − |difference of accuracy to "
        "the oracle|; 1 at the oracle.",
    ),
    "activation_distance": (
        "activation_distance",
        "Mean Euclidean distance between the class probabilities of model and oracle on the "
        "forget set.",
    ),
    "JS": (
        "JS",
        "Jensen–Shannon divergence between the class probabilities of model and oracle on the "
        "forget set, in nats.",
    ),
    "completeness": (
        "completeness",
        "Share of the forget set on which model and oracle decide alike, in percent.",
    ),
    "wasserstein": (
        "wasserstein",
        "Wasserstein-1 distance between the predictions of model and oracle on the forget set.",
    ),
    "confidence": ("confidence", "Probability (softmax) that the model gives to the true class."),
    "seconds": (
        "seconds",
        "Wall-clock time of unlearning: masks, statistics, training and edits; evaluation and "
        "search are not in it.",
    ),
    "peak_memory": (
        "peak_memory",
        "Largest memory in use during the run, in MiB (allocated on a GPU; resident on a CPU).",
    ),
    "trainable": ("trainable", "Number of weights that the method was allowed to move."),
    "moved": ("moved", "Number of weights that differ after the run."),
}
"""By metric: the name that tables show, and the sentence."""

DIRECTED = {
    "UA": (
        "UA",
        "Unlearning accuracy: share of the images generated for what was erased in which an "
        "external judge does not see it, in percent; higher is better.",
    ),
}
"""What a metric means where its value is good by itself, and not by its closeness to the
oracle's.
"""

FAMILIES = {
    "MIA/": ("MIA …", "As MIA, by an attack on that feature instead of the confidence."),
    "gap/": ("gap …", "|metric − metric of the oracle of the same seeds|."),
    "accuracy/": ("accuracy …", "Accuracy on another part of the data, in percent."),
    "MAE/": ("MAE …", "Mean absolute error on that part, in the target's units."),
    "UA/images/": ("UA images …", "Number of images in which the judge sees that label."),
    "UA/": ("UA …", "As UA, on that part of the images."),
    "IRA/": ("IRA …", "As IRA, on that part of the images."),
    "CRA/": ("CRA …", "As CRA, on that part of the images."),
    "ASR/": ("ASR …", "As ASR, by that attack."),
    "P/": (
        "P …",
        "Mean probability of the answers of that set (to the power of one over their tokens), in "
        "[0, 1].",
    ),
    "ROUGE/": ("ROUGE …", "Mean ROUGE-L recall of greedy answers of that set, in [0, 1]."),
    "TR/": (
        "TR …",
        "Truth ratio of that set, in [0, 1]: on the forget set min(R, 1/R), elsewhere max(0, 1 − "
        "R), R being the probability of wrong answers over that of the paraphrased right one.",
    ),
    "AUC/": (
        "AUC …",
        "Area under the ROC curve of that membership attack, forget against held-out rows; 1 = "
        "memorised.",
    ),
    "relearning/": ("relearning …", "As relearning, of that score or on those rows."),
    "quantisation/": (
        "quantisation …",
        "As quantisation, with that number of bits and on that part.",
    ),
    "RMSE/": ("RMSE …", "Root mean squared error on that part, in the target's units."),
    "seconds/": ("seconds …", "The part of seconds that this stage took."),
}
"""By the first part of the metric's name."""


def definitions(
    metrics: Iterable[str], directed: Iterable[str] = (), close: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Shown name and sentence of what is known among `metrics`, each family once, in a fixed order.

    Args:
        metrics: what the page shows.
        directed: those that are good by themselves in some task.
        close: those that are good by their closeness to the oracle in some task; both senses are
            given where both occur.
    """
    metrics = set(metrics)
    other = set(directed) & set(DIRECTED)
    families = [
        entry
        for prefix, entry in FAMILIES.items()
        if any(m.startswith(prefix) and m not in EXACT for m in metrics)
    ]
    found = []
    for metric, entry in EXACT.items():
        if metric in metrics:
            found += [DIRECTED[metric]] if metric in other else []
            found += [entry] if metric not in other or metric in set(close) else []
    return found + families
