import cv2
import numpy as np
import pytest

from gss.data.augment import NO_PHOTOMETRIC, Augment, Draws, apply, crop_label, distort, draw, fit_size


def stripes(height: int, width: int) -> np.ndarray:
    """A label in which every crop holds two classes, half and half."""
    return np.broadcast_to((np.arange(width) // 8 % 2).astype(np.uint8), (height, width)).copy()


@pytest.mark.parametrize(
    ("width", "height", "fitted"),
    [(683, 512, (683, 512)), (2000, 1500, (683, 512)), (300, 1000, (512, 1707))],
)
def test_resize_keeps_proportions(width, height, fitted):
    assert fit_size(height, width, (2048, 512)) == fitted[::-1]
    assert fit_size(height, width, (512, 2048)) == fitted[::-1]


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


# ---- colours as published, in uint8


def published_distortion(bgr: np.ndarray, draws: tuple[float, ...]) -> np.ndarray:
    """Straightforward: BGR, whole arrays, one step after the other; hue 180 is a drawn 0."""
    brightness, contrast, saturation, hue, late_contrast = draws

    def convert(values: np.ndarray, a: float, b: float) -> np.ndarray:
        return np.trunc(np.clip(values.astype(np.float32) * a + b, 0, 255)).astype(np.uint8)

    if brightness != 0:
        bgr = convert(bgr, 1, brightness)
    if contrast != 1:
        bgr = convert(bgr, contrast, 0)
    if saturation != 1:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[:, :, 1] = convert(hsv[:, :, 1], saturation, 0)
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if hue != 0:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + int(hue)) % 180
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return convert(bgr, late_contrast, 0) if late_contrast != 1 else bgr


def published_pipeline(rng: np.random.RandomState, bgr: np.ndarray, label: np.ndarray, settings: Augment):
    """Steps 1 to 6 of the published training pipeline in one go, draw by draw; shares no code with ours."""
    factor = rng.random_sample() * (settings.ratio[1] - settings.ratio[0]) + settings.ratio[0]
    long, short = (int(side * factor) for side in settings.base_scale)
    height, width = label.shape
    fit = min(max(long, short) / max(height, width), min(long, short) / min(height, width))
    size = int(width * fit + 0.5), int(height * fit + 0.5)
    bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    side = settings.crop[0]

    def box() -> tuple[slice, slice]:
        y = rng.randint(0, max(size[1] - side, 0) + 1)
        x = rng.randint(0, max(size[0] - side, 0) + 1)
        return slice(y, y + side), slice(x, x + side)

    crop = box()
    for _ in range(10):
        ids, counts = np.unique(label[crop], return_counts=True)
        counts = counts[ids != 255]
        if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
            break
        crop = box()
    bgr, label = bgr[crop], label[crop]
    if rng.rand() < 0.5:
        bgr, label = np.flip(bgr, 1).copy(), np.flip(label, 1)

    def when(convert):  # one of two: act or leave it
        return convert() if rng.randint(2) else None

    def contrast() -> float:
        return when(lambda: rng.uniform(0.5, 1.5)) or 1.0

    brightness = when(lambda: rng.uniform(-32, 32)) or 0.0
    early = rng.randint(2)
    first = contrast() if early else 1.0
    saturation = when(lambda: rng.uniform(0.5, 1.5)) or 1.0
    turn = when(lambda: rng.randint(-18, 18))
    hue = 0.0 if turn is None else turn or 180
    last = 1.0 if early else contrast()
    bgr = published_distortion(bgr, (brightness, first, saturation, hue, last))
    below, right = side - label.shape[0], side - label.shape[1]
    padded = np.pad(label, ((0, below), (0, right)), constant_values=255)
    return np.pad(bgr, ((0, below), (0, right), (0, 0))), padded, label.shape


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth colours with noise, uint8 [H, W, 3]: all hues, grey, black and white occur."""
    rng = np.random.RandomState(height + width)
    coarse = rng.randint(-60, 316, (9, 12, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 3, (height, width, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        Augment((96, 64), (0.5, 2.0), (64, 64), uint8=True),  # pads, too
        Augment((130, 100), (0.7, 1.4), (48, 48), uint8=True),
    ],
)
def test_the_whole_pipeline_equals_a_straightforward_one(settings):
    image, label = photograph(90, 140), stripes(90, 140)
    label[30:60, 20:80] = 255
    for seed in range(40):
        ours_rng, other = np.random.RandomState(seed), np.random.RandomState(seed)
        draws = draw(ours_rng, label, settings)
        sample = apply(image, label, draws, settings)
        bgr, expected_label, valid = published_pipeline(other, image[..., ::-1].copy(), label, settings)
        assert (sample.image == bgr[..., ::-1]).all(), (seed, draws)
        assert (sample.label == expected_label).all()
        assert sample.valid == valid
        assert sample.photometric == NO_PHOTOMETRIC
        assert ours_rng.random_sample() == other.random_sample()


@pytest.mark.parametrize(
    "draws",
    [
        (20.0, 0.8, 1.4, 0.0, 1.0),
        (-30.0, 1.0, 0.6, 17.0, 1.3),
        (0.0, 1.45, 1.0, -18.0, 1.0),
        (0.0, 1.0, 1.0, 180.0, 1.0),
        (5.5, 1.0, 1.5, 9.0, 0.5),
        (22.224111282184026, 0.8843817072926998, 1.3917730007820799, 0.0, 1.0),
    ],
)
def test_uint8_distortion_follows_the_published_roundings(draws):
    image = photograph(61, 97)
    before = image.copy()
    expected = published_distortion(image[..., ::-1].copy(), draws)[..., ::-1]
    assert (distort(image, draws) == expected).all()
    replayed = tuple(float(np.float32(value)) for value in draws)  # as a batch holds them
    assert (distort(image, replayed) == expected).all()
    assert (image == before).all()


def test_neutral_uint8_draws_change_nothing():
    image = photograph(40, 50)
    assert (distort(image, NO_PHOTOMETRIC) == image).all()


def test_every_level_is_cut_not_rounded():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert distort(ramp, (0.0, 0.5, 1.0, 0.0, 1.0)).ravel()[::3].tolist() == [level // 2 for level in range(256)]
    assert distort(ramp, (-0.5, 1.0, 1.0, 0.0, 1.0)).ravel()[:9:3].tolist() == [0, 0, 1]


def test_a_drawn_hue_of_zero_still_goes_through_hsv():
    label, settings = stripes(40, 40), Augment((40, 40), (1.0, 1.0), (40, 40), uint8=True)
    hues = {draw(np.random.RandomState(seed), label, settings).photometric[3] for seed in range(400)}
    assert hues == {0.0, 180.0, *range(-18, 0), *range(1, 18)}
    image = photograph(40, 40)
    there_and_back = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), cv2.COLOR_HSV2RGB)
    assert (there_and_back != image).any()
    assert (distort(image, (0.0, 1.0, 1.0, 180.0, 1.0)) == there_and_back).all()


def test_recorded_draws_give_the_sample_again():
    image, label, settings = photograph(90, 140), stripes(90, 140), Augment((96, 64), (0.5, 2.0), (48, 48), uint8=True)
    draws = draw(np.random.RandomState(11), label, settings)
    first, second = apply(image, label, draws, settings), apply(image, label, draws, settings)
    assert (first.image == second.image).all() and (first.label == second.label).all()
    plain = apply(image, label, draws, Augment((96, 64), (0.5, 2.0), (48, 48)))
    assert plain.photometric == draws.photometric
    height, width = plain.valid
    assert (distort(plain.image[:height, :width], draws.photometric) == first.image[:height, :width]).all()
