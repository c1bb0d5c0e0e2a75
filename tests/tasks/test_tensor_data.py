"""TensorData and Source: exact values, views that share storage, nothing stored is ever changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mu.utils.errors import InputError
from tasks.tensor_data import Source, TensorData, pixel_stats


def images(count: int = 6) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def data(count: int = 6) -> TensorData:
    return TensorData(
        {"image": images(count), "label": torch.arange(count) % 3}, np.arange(count) * 10
    )


def source(**changes: object) -> Source:
    facts: dict = {
        "name": "small",
        "train": {"image": images(6), "label": torch.arange(6) % 3},
        "test": {"image": images(4), "label": torch.arange(4) % 3},
        "train_indices": np.arange(6),
        "test_indices": np.arange(6, 10),
        "num_classes": 3,
        "class_names": ("a", "b", "c"),
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
        "input_size": (3, 4, 5),
    }
    return Source(**{**facts, **changes})


def test_a_batch_is_the_stored_pixels_over_255() -> None:
    batch = data().__getitems__([4, 0])
    assert batch["image"].dtype == torch.float32
    assert torch.equal(batch["image"], torch.stack([images()[4] / 255, images()[0] / 255]))
    assert batch["label"].tolist() == [1, 0]
    assert batch["index"].tolist() == [40, 0]
    assert batch["index"].dtype == torch.int64


def test_the_image_scale_makes_other_grey_levels_exact() -> None:
    levels = torch.arange(17, dtype=torch.uint8).view(17, 1, 1, 1)
    dataset = TensorData({"image": levels}, np.arange(17), image_scale=16)
    assert dataset.__getitems__(list(range(17)))["image"].flatten().tolist() == [
        k / 16 for k in range(17)
    ]


def test_one_sample_is_the_batch_without_its_first_dimension() -> None:
    dataset = data()
    for position in range(len(dataset)):
        sample = dataset[position]
        batch = dataset.__getitems__([position])
        assert sample.keys() == batch.keys() == {"image", "label", "index"}
        assert all(torch.equal(sample[name], batch[name][0]) for name in sample)
    assert torch.equal(dataset[-1]["image"], dataset[5]["image"])
    with pytest.raises(IndexError):
        dataset[6]
    assert len(list(dataset)) == 6


def test_changing_a_batch_or_a_sample_leaves_the_data_alone() -> None:
    dataset = TensorData({"input": torch.rand(5, 2), "target": torch.rand(5)}, np.arange(5))
    before = dataset.__getitems__([0, 1, 2, 3, 4])
    fetched = dataset.__getitems__([0, 1, 2, 3, 4])
    sample = dataset[2]
    stored = dataset.stored("input")
    for tensor in (*fetched.values(), *sample.values(), stored):
        tensor.zero_()
    after = dataset.__getitems__([0, 1, 2, 3, 4])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_view_follows_the_order_asked_for_and_shares_the_storage() -> None:
    dataset = data()
    part = dataset.view(np.array([50, 10, 30]))
    assert part.indices.tolist() == [50, 10, 30]
    assert part.__getitems__([0, 2])["index"].tolist() == [50, 30]
    assert torch.equal(part[1]["image"], dataset[1]["image"])
    again = part.view(np.array([30]))
    assert torch.equal(again[0]["image"], dataset[3]["image"])
    assert torch.equal(part.stored("image"), images()[[5, 1, 3]])
    assert part._fields["image"].data_ptr() == dataset._fields["image"].data_ptr()


def test_views_carry_their_weights() -> None:
    dataset = TensorData(
        {"target": torch.zeros(4)}, np.array([3, 1, 2, 0]), weights=np.array([0.5, 1, 2, 4])
    )
    weights = dataset.view(np.array([0, 3])).weights
    assert weights is not None and weights.tolist() == [4, 0.5]
    assert data().weights is None


def test_a_loader_gets_whole_batches() -> None:
    loader = DataLoader(data(), batch_size=4, collate_fn=lambda batch: batch)
    assert [batch["index"].tolist() for batch in loader] == [[0, 10, 20, 30], [40, 50]]


@pytest.mark.parametrize(
    ("fields", "indices", "weights", "sentence"),
    [
        ({"label": torch.zeros(3)}, np.arange(4), None, "differ in length"),
        (
            {"label": torch.zeros(3), "image": torch.zeros(2, 1, 2, 2)},
            np.arange(3),
            None,
            "differ in length",
        ),
        ({"label": torch.zeros(3)}, np.arange(3), np.ones(2), "differ in length"),
        ({"label": torch.zeros(3)}, np.array([0, 1, 1]), None, "share one index"),
    ],
)
def test_data_that_do_not_fit_together_are_refused(fields, indices, weights, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        TensorData(fields, indices, weights)


@pytest.mark.parametrize(
    ("wanted", "sentence"), [([0, 7], "no sample with index 7"), ([900], "900"), ([0, 0], "twice")]
)
def test_a_view_of_unknown_or_repeated_samples_is_refused(wanted: list[int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        data().view(np.array(wanted))


def test_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no field `target`; it has image, label"):
        data().stored("target")


def test_a_source_views_train_test_and_both() -> None:
    small = source()
    assert small.view(np.array([5, 0]))[0]["index"].item() == 5
    assert torch.equal(small.view(np.array([7]))[0]["image"], images(4)[1] / 255)
    mixed = small.view(np.array([9, 1]))
    assert torch.equal(mixed[0]["image"], images(4)[3] / 255) and torch.equal(
        mixed[1]["image"], images(6)[1] / 255
    )
    assert small.view(np.array([], dtype=np.int64)).indices.size == 0


def test_a_source_refuses_an_index_for_two_samples() -> None:
    with pytest.raises(InputError, match="one index for two samples"):
        source(test_indices=np.arange(5, 9))


def test_relabelling_changes_labels_and_name_only() -> None:
    small = source()
    noisy = np.array([2, 1, 2, 0, 0, 2])
    other = small.relabelled(noisy)
    assert other.labels().tolist() == noisy.tolist()
    assert other.train["clean_label"].tolist() == small.labels().tolist() == [0, 1, 2, 0, 1, 2]
    assert other.train["image"].data_ptr() == small.train["image"].data_ptr()
    assert (
        other.labels("test").tolist()
        == small.labels("test").tolist()
        == other.test["clean_label"].tolist()
    )
    assert other.name != small.name and other.name != small.relabelled(noisy[::-1]).name
    assert other.view(np.array([0, 9])).__getitems__([0, 1])["clean_label"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("labels", "sentence"), [([0, 1], "2 labels"), ([0, 1, 2, 3, 0, 0], "0 to 2")]
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        source().relabelled(np.array(labels))


def test_pixel_statistics_equal_the_floats() -> None:
    pixels = images(50)
    mean, std = pixel_stats(pixels)
    exact = pixels.to(torch.float64) / 255
    assert torch.allclose(torch.tensor(mean, dtype=torch.float64), exact.mean((0, 2, 3)))
    assert torch.allclose(
        torch.tensor(std, dtype=torch.float64), exact.std((0, 2, 3), correction=0)
    )
    assert pixel_stats(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8))[1] == (1.0,)
