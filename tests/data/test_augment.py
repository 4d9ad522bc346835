import cv2
import numpy as np
import pytest

from gss.data.augment import Augment, Draws, apply, crop_label, draw, fit_size, nearest_indices

ADE = Augment(base_scale=(2048, 512), ratio=(0.5, 2.0), crop=(512, 512))
CITYSCAPES = Augment(base_scale=(2049, 1025), ratio=(0.5, 2.0), crop=(768, 768))

# seed, (W, H), settings, resized (W, H), offset (y, x), flip,
# (brightness, contrast, saturation, hue, late contrast), next random number
CHECK_SEQUENCE = [
    (0, (683, 512), ADE, (903, 677), (117, 192), False,
     (22.224111282184026, 0.8843817072926998, 1.3917730007820799, 0, 1), 0.2726562945801132),
    (1, (683, 512), ADE, (768, 576), (12, 72), True,
     (31.938592980745263, 1, 1, -6, 0.8455607270430477), 0.39676747423066994),
    (2, (683, 512), ADE, (787, 590), (72, 22), False,
     (-5.096460666400702, 1, 0.7046486340378425, 13, 1), 0.6327377306009369),
    (0, (2048, 1024), CITYSCAPES, (2711, 1356), (192, 835), False,
     (-4.886092842310099, 1, 1, -12, 1), 0.05671297731744318),
]  # fmt: skip


def stripes(height: int, width: int) -> np.ndarray:
    """A label in which every crop holds two classes, half and half."""
    return np.broadcast_to((np.arange(width) // 8 % 2).astype(np.uint8), (height, width)).copy()


@pytest.mark.parametrize("row", CHECK_SEQUENCE, ids=["ade0", "ade1", "ade2", "cityscapes0"])
def test_draws_equal_the_published_pipeline(row):
    seed, (width, height), settings, size, offset, flip, photometric, following = row
    rng = np.random.RandomState(seed)
    draws = draw(rng, stripes(height, width), settings)
    assert draws == Draws(size[::-1], offset, flip, photometric)
    assert rng.random_sample() == following


@pytest.mark.parametrize(
    ("width", "height", "fitted"),
    [(683, 512, (683, 512)), (2000, 1500, (683, 512)), (300, 1000, (512, 1707))],
)
def test_resize_keeps_proportions(width, height, fitted):
    assert fit_size(height, width, (2048, 512)) == fitted[::-1]
    assert fit_size(height, width, (512, 2048)) == fitted[::-1]


def test_nearest_indices_equal_opencv():
    rng = np.random.RandomState(0)
    for _ in range(400):
        source, target = rng.randint(1, 1500, 2)
        ramp = np.arange(source, dtype=np.float32)[None]
        expected = cv2.resize(ramp, (int(target), 1), interpolation=cv2.INTER_NEAREST)[0]
        assert (nearest_indices(source, target) == expected).all(), (source, target)


def test_nearest_indices_at_exact_factors():
    assert nearest_indices(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert nearest_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


def test_label_crop_equals_crop_of_the_resized_label():
    rng = np.random.RandomState(0)
    label = rng.randint(0, 5, (60, 83), dtype=np.uint8)
    whole = cv2.resize(label, (131, 95), interpolation=cv2.INTER_NEAREST)
    assert (crop_label(label, (95, 131), (20, 33), (64, 48)) == whole[20:84, 33:81]).all()
    assert crop_label(label, (95, 131), (0, 0), (200, 48)).shape == (95, 48)


def test_crops_of_one_class_are_drawn_again_and_the_eleventh_is_taken():
    settings = Augment((64, 64), (1.0, 1.0), (16, 16), photometric=False)
    label = np.zeros((64, 64), np.uint8)
    rng = np.random.RandomState(0)
    draw(rng, label, settings)
    other = np.random.RandomState(0)
    other.random_sample()
    for _ in range(11 * 2):
        other.randint(0, 49)
    other.random_sample()
    assert rng.random_sample() == other.random_sample()


def test_ignored_pixels_do_not_count_as_a_class():
    settings = Augment((64, 64), (1.0, 1.0), (16, 16), photometric=False)
    label = np.where(stripes(64, 64) == 1, 255, 0).astype(np.uint8)
    first, second = (draw(np.random.RandomState(3), case, settings) for case in (label, np.zeros_like(label)))
    assert first == second


def test_a_large_share_of_one_class_is_refused():
    settings = Augment((64, 64), (1.0, 1.0), (16, 16), photometric=False)
    label = np.zeros((64, 64), np.uint8)
    label[:, 56:] = 1  # only boxes near the right edge hold both classes below the limit
    for seed in range(20):
        draws = draw(np.random.RandomState(seed), label, settings)
        box = label[draws.offset[0] : draws.offset[0] + 16, draws.offset[1] : draws.offset[1] + 16]
        if (box == 1).mean() > 0.25:
            return
    raise AssertionError("no crop with both classes in 20 samples")


def test_identity_draws_return_the_input():
    rng = np.random.RandomState(0)
    image, label = rng.randint(0, 256, (20, 30, 3), dtype=np.uint8), rng.randint(0, 3, (20, 30), dtype=np.uint8)
    settings = Augment((30, 20), (1.0, 1.0), (20, 30))
    sample = apply(image, label, Draws((20, 30), (0, 0), False), settings)
    assert (sample.image == image).all()
    assert (sample.label == label).all()
    assert sample.valid == (20, 30)


def test_flip_mirrors_image_and_label_and_padding_stays_right_and_below():
    rng = np.random.RandomState(0)
    image, label = rng.randint(0, 256, (20, 30, 3), dtype=np.uint8), rng.randint(0, 3, (20, 30), dtype=np.uint8)
    sample = apply(image, label, Draws((20, 30), (0, 0), True), Augment((30, 20), (1.0, 1.0), (24, 40)))
    assert sample.valid == (20, 30)
    assert (sample.image[:20, :30] == image[:, ::-1]).all()
    assert (sample.label[:20, :30] == label[:, ::-1]).all()
    assert (sample.label[20:] == 255).all()
    assert (sample.label[:, 30:] == 255).all()


def test_image_and_label_stay_aligned():
    label = stripes(90, 120)
    image = np.repeat((label * 255)[..., None], 3, axis=2)
    settings = Augment((120, 90), (1.5, 2.0), (64, 64), photometric=False)
    for seed in range(5):
        sample = apply(image, label, draw(np.random.RandomState(seed), label, settings), settings)
        decided = (sample.image[..., 0] < 20) | (sample.image[..., 0] > 235)
        agree = (sample.image[..., 0] > 127) == (sample.label == 1)
        assert agree[decided].mean() > 0.98
