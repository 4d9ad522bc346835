import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from gss.data.check import scan
from gss.data.classes import read_class_space
from gss.data.images import read_image, read_native_label
from gss.data.pairing import SplitFolders
from gss.data.toy import make_toy
from gss.files import sha256_file

SIZES = {"train": 20, "val": 4, "test": 10}


def load(root, split: str) -> tuple[np.ndarray, np.ndarray]:
    images = [read_image(path) for path in sorted((root / "images" / split).iterdir())]
    labels = [read_native_label(path) for path in sorted((root / "labels" / split).iterdir())]
    return np.stack(images), np.stack(labels)


def hashes(root) -> dict[str, str]:
    return {str(path.relative_to(root)): sha256_file(path) for path in sorted(root.rglob("*.*"))}


def test_the_same_seed_gives_the_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_toy(tmp_path / name, seed=seed, sizes={"train": 2, "test": 2})
    a, b, c = (hashes(tmp_path / name) for name in "abc")
    assert a == b
    assert len(set(a.values()) & set(c.values())) == 1, "only the class table is the same under another seed"
    assert len(set(a.values())) == len(a), "no split repeats another"


def test_the_set_is_sound_and_every_class_is_frequent(tmp_path):
    make_toy(tmp_path, sizes=SIZES)
    space = read_class_space(tmp_path / "classes.csv")
    assert space.colours is not None
    splits = {split: SplitFolders(f"images/{split}", f"labels/{split}") for split in SIZES}
    _, statistics, faults = scan(tmp_path, splits, space)
    assert faults == []
    assert statistics["warnings"] == []
    for split, count in SIZES.items():
        table = statistics["splits"][split]
        assert table["images"] == count
        assert 0.02 < table["ignored_pixels"] / table["pixels"] < 0.1
    assert all(
        row["pixels"] > 0.03 * statistics["splits"]["train"]["pixels"]
        for row in statistics["splits"]["train"]["classes"]
    )


def test_colour_alone_does_not_solve_it(tmp_path):
    make_toy(tmp_path, sizes=SIZES)
    (images, labels), (test_images, test_labels) = load(tmp_path, "train"), load(tmp_path, "test")
    known = labels != 255
    for class_weight in (None, "balanced"):
        classifier = HistGradientBoostingClassifier(max_iter=30, class_weight=class_weight, random_state=0)
        classifier.fit(images[known][::5], labels[known][::5])
        predicted = classifier.predict(test_images.reshape(-1, 3)).reshape(test_labels.shape)
        predicted[test_labels == 255] = 255
        ious = [
            ((predicted == k) & (test_labels == k)).sum() / ((predicted == k) | (test_labels == k)).sum()
            for k in range(6)
        ]
        assert np.mean(ious) < 0.5
