"""Task on scikit-learn's wine data: 13 measurements, three growers."""

import numpy as np
import torch
from sklearn.datasets import load_wine

from tasks import Source, SourceTask


class Wine(SourceTask):
    """Forget some of 130 wines; 48 others are the test set."""

    def source(self) -> Source:
        """Measurements standardised by the training set's mean and deviation."""
        measurements, growers = load_wine(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(growers))
        train, test = order[:130], order[130:]
        mean = measurements[train].mean(0)
        std = measurements[train].std(0)
        inputs = torch.tensor((measurements - mean) / std, dtype=torch.float32)
        labels = torch.tensor(growers)
        return Source(
            "wine",
            {"input": inputs[train], "label": labels[train]},
            {"input": inputs[test], "label": labels[test]},
            train,
            test,
            num_classes=3,
            class_names=("first", "second", "third"),
            mean=tuple(mean),
            std=tuple(std),
            input_size=(13,),
        )
