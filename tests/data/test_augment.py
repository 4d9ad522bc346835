import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gss.config.schema import Augment as AugmentKeys
from gss.data.augment import (
    NO_PHOTOMETRIC,
    Augment,
    Draws,
    apply,
    crop_label,
    distort,
    draw,
    fit_short,
    fit_size,
)
from gss.data.device import finish, normalise


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
    assert sample.valid == (0, 0, 20, 30)


def test_flip_mirrors_image_and_label_and_padding_stays_right_and_below():
    rng = np.random.RandomState(0)
    image, label = rng.randint(0, 256, (20, 30, 3), dtype=np.uint8), rng.randint(0, 3, (20, 30), dtype=np.uint8)
    sample = apply(image, label, Draws((20, 30), (0, 0), True), Augment((30, 20), (1.0, 1.0), (24, 40)))
    assert sample.valid == (0, 0, 20, 30)
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
        assert sample.valid == (0, 0, *valid)
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
    _, _, height, width = plain.valid
    assert (distort(plain.image[:height, :width], draws.photometric) == first.image[:height, :width]).all()


# ---- the pipeline of MSeg

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def mseg(side: int, crop: tuple[int, int], **changes: object) -> Augment:
    keys = {"cat_max_ratio": None, "rotate": 10.0, "blur": True, "centred": True, "photometric": False}
    return Augment(side, (0.5, 2.0), crop, **{**keys, **changes})


@pytest.mark.parametrize(
    ("size", "side", "fitted"),
    [
        ((1000, 1333), 480, (480, 639)),  # 639.84, which the resize of the evaluation rounds
        ((1333, 1000), 480, (639, 480)),
        ((360, 480), 1080, (1080, 1440)),
        ((500, 375), 1080, (1440, 1080)),
        ((375, 500), 720, (720, 960)),
        ((50, 50), 33, (33, 33)),
    ],
)
def test_the_long_side_is_cut_to_whole_pixels(size, side, fitted):
    assert fit_short(*size, side) == fitted
    label = np.zeros(size, np.uint8)
    settings = Augment(side, (1.0, 1.0), (8, 8), cat_max_ratio=None, photometric=False)
    assert draw(np.random.RandomState(0), label, settings).size == fitted


def published_mseg_pipeline(rng: np.random.RandomState, image: np.ndarray, label: np.ndarray, settings: Augment):
    """Steps 1 to 6 of MSeg's training pipeline, each on the whole image of any type; shares no code with ours."""
    ignored = float(np.iinfo(label.dtype).max)
    scale = rng.random_sample() * (settings.ratio[1] - settings.ratio[0]) + settings.ratio[0]
    angle = rng.uniform(-settings.rotate, settings.rotate) if settings.rotate and rng.randint(2) else None
    blur = settings.blur and rng.randint(2)
    factor = settings.base_scale / min(label.shape)
    size = tuple(settings.base_scale if side == min(label.shape) else int(side * factor) for side in label.shape)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    colour = MEAN if image.dtype == np.float32 else (124, 116, 104)
    height, width = label.shape
    if angle is not None:
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
        ways = {"borderMode": cv2.BORDER_CONSTANT}
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=colour, **ways)
        label = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=ignored, **ways)
    if blur:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    (h, w), (y, x) = (
        settings.crop,
        (rng.randint(0, max(b - a, 0) + 1) for a, b in zip(settings.crop, label.shape, strict=True)),
    )
    if rng.random_sample() < settings.flip:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        x = max(width - w, 0) - x
    down, across = max(h - height, 0), max(w - width, 0)
    around = (down // 2, down - down // 2, across // 2, across - across // 2)
    image = cv2.copyMakeBorder(image, *around, cv2.BORDER_CONSTANT, value=colour)
    label = cv2.copyMakeBorder(label, *around, cv2.BORDER_CONSTANT, value=ignored)
    return image[y : y + h, x : x + w], label[y : y + h, x : x + w]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("size", "side", "crop"), [((90, 140), 64, (73, 65)), ((141, 97), 80, (65, 81))])
def test_the_pipeline_of_mseg_equals_a_straightforward_one(size, side, crop, dtype):
    """To the bit in uint8; of the published float32 it is within a level for each step that interpolates."""
    image, label, settings = photograph(*size), stripes(*size).astype(dtype), mseg(side, crop)
    label[30:60, 20:80] = np.iinfo(dtype).max
    padded, rotated, blurred = 0, 0, 0
    for seed in range(60):
        ours_rng, other, third = (np.random.RandomState(seed) for _ in range(3))
        draws = draw(ours_rng, label, settings)
        sample = apply(image, label, draws, settings)
        expected_image, expected_label = published_mseg_pipeline(other, image, label, settings)
        top, left, bottom, right = sample.valid
        inside = np.s_[top:bottom, left:right]
        assert (sample.image[inside] == expected_image[inside]).all(), (seed, draws)
        assert (sample.label == expected_label).all(), (seed, draws)
        assert ours_rng.random_sample() == other.random_sample()
        exact, exact_label = published_mseg_pipeline(third, image.astype(np.float32), label, settings)
        assert (exact_label == sample.label).all()
        difference = np.abs(sample.image[inside] - exact[inside])
        assert difference.max() < 2 and difference.mean() < 0.4
        ready = finish(
            torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None],
            torch.tensor([sample.valid]),
            torch.tensor([sample.photometric]),
            MEAN,
            STD,
        )
        published = normalise(torch.from_numpy(np.ascontiguousarray(exact)).permute(2, 0, 1)[None], MEAN, STD)
        torch.testing.assert_close(ready, published, rtol=0, atol=2 / min(STD))
        outside = torch.ones(crop, dtype=torch.bool)
        outside[inside] = False
        assert not ready[..., outside].any()
        padded, rotated, blurred = (
            count + bool(what)
            for count, what in zip((padded, rotated, blurred), (outside.any(), draws.angle, draws.blur), strict=True)
        )
    assert min(padded, rotated, blurred, 60 - padded, 60 - rotated, 60 - blurred) > 5


def test_sizes_after_the_ratio_are_those_of_opencv():
    label = np.zeros((75, 101), np.uint8)
    for seed in range(200):
        settings = mseg(33, (8, 8), rotate=0.0)
        draws = draw(np.random.RandomState(seed), label, settings)
        fitted = np.zeros(fit_short(75, 101, 33), np.uint8)
        assert draws.size == cv2.resize(fitted, None, fx=draws.ratio, fy=draws.ratio).shape


def test_half_of_the_samples_are_rotated_blurred_and_flipped():
    label, settings = np.zeros((40, 60), np.uint8), mseg(32, (16, 16))
    found = [draw(np.random.RandomState(seed), label, settings) for seed in range(2000)]
    angles = np.array([draws.angle for draws in found if draws.angle])
    for share in (len(angles), sum(draws.blur for draws in found), sum(draws.flip for draws in found)):
        assert 900 < share < 1100
    assert -10 <= angles.min() < -9.9 and 9.9 < angles.max() <= 10 and abs(angles.mean()) < 0.6
    assert 450 < sum(bool(draws.angle) and draws.blur for draws in found) < 550
    ratios = np.array([draws.ratio for draws in found])
    assert 0.5 <= ratios.min() < 0.51 and 1.99 < ratios.max() < 2 and abs(ratios.mean() - 1.25) < 0.03


def test_every_place_of_the_crop_is_drawn():
    settings = Augment(20, (1.0, 1.0), (16, 17), cat_max_ratio=None, photometric=False)
    label = np.zeros((20, 20), np.uint8)
    found = {draw(np.random.RandomState(seed), label, settings).offset for seed in range(600)}
    assert found == {(y, x) for y in range(5) for x in range(4)}


def test_a_rotation_brings_in_the_mean_colour_that_is_ignored():
    image, settings = np.full((60, 60, 3), 200, np.uint8), mseg(60, (60, 60))
    for dtype in (np.uint8, np.uint16):
        label = np.full((60, 60), 7, dtype)
        sample = apply(image, label, Draws((60, 60), (0, 0), False, angle=10.0), settings)
        outside = sample.label == np.iinfo(dtype).max
        assert 0.05 < outside.mean() < 0.2 and (sample.label[~outside] == 7).all()
        assert outside[0, 0] and outside[-1, -1] and not outside[30, 30]
        assert (sample.image[0, 0] == (124, 116, 104)).all() and (sample.image[30, 30] == 200).all()
        assert sample.valid == (0, 0, 60, 60)


def test_a_smaller_image_stands_in_the_middle():
    image, label = photograph(20, 31), stripes(20, 31)
    sample = apply(image, label, Draws((20, 31), (0, 0), False), mseg(20, (25, 40)))
    assert sample.valid == (2, 4, 22, 35)  # of an odd rest the smaller half before
    assert (sample.image[2:22, 4:35] == image).all() and (sample.label[2:22, 4:35] == label).all()
    assert (sample.label != 255).sum() == 20 * 31


def test_crops_are_drawn_again_by_the_rotated_label():
    """Of a label in halves; nearly never are eleven boxes in vain."""
    settings = Augment(64, (1.0, 1.0), (16, 16), rotate=90.0, photometric=False)
    label, image, shares = np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8), []
    label[:, 32:] = 1
    for seed in range(100):
        draws = draw(np.random.RandomState(seed), label, settings)
        counts = np.bincount(apply(image, label, draws, settings).label.ravel(), minlength=2)[:2]
        if draws.angle:
            shares.append(counts.max() / counts.sum())
    assert len(shares) > 30 and np.mean(np.array(shares) < 0.75) > 0.8


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"base_scale": 0}, "greater than 0"),
        ({"base_scale": [1, 2, 3]}, "base_scale"),
        ({"base_scale": True}, "true and false are no values"),
        ({"base_scale": 1, "ratio": [0.4, 2]}, "leaves none"),
        ({"rotate": 200}, "less than or equal to 180"),
        ({"padding": "mean"}, "'corner' or 'centre'"),
    ],
)
def test_keys_that_make_no_pipeline_are_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        AugmentKeys(**{"base_scale": 1080, "crop": [713, 713], **keys})


def test_keys_of_mseg_and_of_before():
    keys = AugmentKeys(base_scale=1080, crop=[713, 713], rotate=10, blur=True, padding="centre", cat_max_ratio=None)
    assert (keys.base_scale, keys.box, keys.cat_max_ratio) == (1080, (1440, 1080), None)
    before = AugmentKeys(base_scale=[2048, 512], crop=[512, 512])
    assert before.model_dump(exclude_defaults=True) == {"base_scale": (2048, 512), "crop": (512, 512)}
    assert before.box == (2048, 512)
