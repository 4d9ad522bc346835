"""Whole and sliding inference on models whose output is known."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gss.errors import ConfigError
from gss.evaluate import inference, maps
from gss.evaluate.inference import Inference, extra_pictures, lowest_best, predict, resize_image, windows
from tests.normalised import Normalised

from .standins import CPU, MEAN, STD, WHOLE, ColourVotes, Decoder, Position, class_image, network_input


def _predict(model, image, protocol=WHOLE):
    return predict(Normalised(model, MEAN, STD), image, protocol, device=CPU)


def _random_ids(height=40, width=56, num_classes=11, seed=0):
    return np.random.default_rng(seed).integers(0, num_classes, (height, width)).astype(np.uint8)


def _slow(views, size):
    """The textbook way: resize everything, softmax, mean, first maximum."""
    full = [F.interpolate(v[None], size, mode="bilinear", align_corners=False)[0].softmax(0) for v in views]
    return torch.stack(full).mean(0).argmax(0)


def test_whole_reads_the_classes_of_every_pixel():
    ids = _random_ids()
    result = _predict(ColourVotes(11), class_image(ids))
    assert result.dtype == torch.uint8
    np.testing.assert_array_equal(result.numpy(), ids)


def test_slide_with_one_window_equals_whole():
    image = np.random.default_rng(1).integers(0, 256, (33, 47, 3)).astype(np.uint8)
    model = Position(9)
    whole = _predict(model, image)
    for crop in ((33, 47), (64, 64), (33, 100)):
        assert torch.equal(_predict(model, image, Inference("slide", crop, (16, 16))), whole)


def test_slide_averages_where_windows_overlap():
    image = np.random.default_rng(2).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    model = Position(5)
    window = model.scores(torch.zeros(1, 3, 24, 24))[0]
    total, visits = torch.zeros(5, 40, 50), torch.zeros(40, 50)
    red = torch.from_numpy(image[..., 0]) / 255
    for y in (0, 16):
        for x in (0, 16, 26):
            total[:, y : y + 24, x : x + 24] += window + red[y : y + 24, x : x + 24]
            visits[y : y + 24, x : x + 24] += 1
    found = _predict(model, image, Inference("slide", (24, 24), (16, 16)))
    assert torch.equal(found.long(), (total / visits).argmax(0))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(40, 50), (97, 31), (24, 24), (25, 70), (1, 1)])
@pytest.mark.parametrize("stride", [(16, 16), (5, 24), (24, 7)])
def test_strips_of_windows_equal_the_sums_over_the_whole_image(size, stride, flip):
    image = np.random.default_rng(6).integers(0, 256, (*size, 3)).astype(np.uint8)
    model, protocol = Position(7), Inference("slide", (24, 24), stride, flip=flip)
    prepared = network_input(image, protocol)
    views = []
    for view in [prepared, prepared.flip(-1)][: 1 + flip]:
        total, visits = torch.zeros(7, *size), torch.zeros(size)
        for rows, columns in windows(*size, (24, 24), stride):
            total[:, rows, columns] += model.scores(view[:, :, rows, columns])[0]
            visits[rows, columns] += 1
        views.append(total / visits)
    if flip:
        views[1] = views[1].flip(-1)
    shares = torch.empty(7, *size)
    found = predict(Normalised(model, MEAN, STD), image, protocol, device=CPU, probabilities=shares)
    assert torch.equal(found, lowest_best(views, size))
    torch.testing.assert_close(shares, torch.stack([view.softmax(0) for view in views]).mean(0))


def test_no_more_than_a_strip_of_scores_is_kept():
    image, protocol, kept = class_image(_random_ids(400, 30, 9)), Inference("slide", (24, 24), (16, 16)), []
    model = ColourVotes(9)
    pixels = inference._pixels(image, protocol, CPU)
    for rows, [view] in inference._strips(lambda part: model.scores(part)[0], pixels, protocol, (400, 30)):
        kept.append((rows, view.untyped_storage().nbytes()))
    assert [row for rows, _ in kept for row in range(rows.start, rows.stop)] == list(range(400))
    assert {size for _, size in kept} == {10 * 24 * 30 * 4}  # nine classes and the number of windows, float32


def test_slide_grid_of_cityscapes():
    grid = windows(1024, 2048, (768, 768), (512, 512))
    assert len(grid) == 8
    assert sorted({rows.start for rows, _ in grid}) == [0, 256]
    assert sorted({columns.start for _, columns in grid}) == [0, 512, 1024, 1280]
    visits = np.zeros((1024, 2048), int)
    for rows, columns in grid:
        assert (rows.stop - rows.start, columns.stop - columns.start) == (768, 768)
        visits[rows, columns] += 1
    assert (visits.min(), visits.max()) == (1, 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((300, 400), [(0, 300, 0, 400)]),  # smaller than the crop: one window of the image's size
        ((512, 768), [(0, 512, 0, 768)]),
        ((512, 769), [(0, 512, 0, 768), (0, 512, 1, 769)]),  # one row of windows, the last shifted back
    ],
)
def test_slide_grid_of_small_images(size, expected):
    grid = windows(*size, (768, 768), (512, 512))
    assert [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in grid] == expected


def test_a_stride_with_gaps_is_refused():
    with pytest.raises(ConfigError, match="larger than crop"):
        Inference("slide", (64, 64), (65, 64))


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(683, 512, (512, 683)), (2000, 1500, (512, 683)), (300, 1000, (1707, 512))],
)
def test_keep_ratio_resize_into_2048_by_512(width, height, expected):
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
    resized = resize_image(image, (2048, 512))
    assert resized.shape == (*expected, 3)
    opencv = cv2.resize(image, expected[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resized, opencv)


def test_scores_return_to_the_size_of_the_file():
    model = ColourVotes(4)
    image = class_image(np.full((30, 20), 3))
    image[:15] = 1
    result = _predict(model, image, Inference(scale=(60, 40)))
    assert model.seen == [(1, 3, 60, 40)]
    assert result.shape == (30, 20)
    assert (result[:14] == 1).all() and (result[16:] == 3).all()


@pytest.mark.parametrize("num_classes", [2, 16, 18, 23, 24, 33, 150])
@pytest.mark.parametrize("size", [(20, 30), (33, 41), (7, 11)])
def test_chunked_maximum_equals_resizing_everything(num_classes, size):
    view = torch.randn(num_classes, 20, 30, generator=torch.Generator().manual_seed(num_classes))
    assert torch.equal(lowest_best([view], size).long(), _slow([view], size))


@pytest.mark.parametrize("num_classes", [2, 16, 18, 23, 24, 33, 150])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_votes_are_resized_to_the_bits_of_the_whole_map(num_classes, layout):
    """Otherwise ties of votes, which rounding decides, would differ from the published code's."""
    ids = torch.randint(0, num_classes, (1, 67, 93), generator=torch.Generator().manual_seed(1))
    votes = F.one_hot(ids, num_classes).permute(0, 3, 1, 2).float().contiguous(memory_format=layout)
    whole = F.interpolate(votes, (101, 141), mode="bilinear", align_corners=False)[0]
    assert torch.equal(torch.cat(list(maps.resized(votes[0], (101, 141)))), whole)


def test_ties_go_to_the_lowest_id():
    num_classes = 24
    for tied in ((5, 6), (1, 20), (7, 8, 23), (16, 17)):
        scores = torch.zeros(num_classes, 4, 4)
        scores[list(tied)] = 0.5
        for size in ((4, 4), (9, 6)):
            assert (lowest_best([scores], size) == tied[0]).all()
    assert (lowest_best([torch.full((num_classes, 2, 2), -3.0)], (2, 2)) == 0).all()


def test_flip_averages_probabilities():
    generator = torch.Generator().manual_seed(4)
    views = [4 * torch.randn(11, 12, 16, generator=generator) for _ in range(2)]
    for size in ((12, 16), (25, 31)):
        assert torch.equal(lowest_best(views, size).long(), _slow(views, size))
    ids = _random_ids(seed=5)
    model = ColourVotes(11)
    assert torch.equal(_predict(model, class_image(ids), Inference(flip=True)), torch.from_numpy(ids))
    assert len(model.seen) == 2


def test_150_classes_at_2048_by_1024_never_make_a_full_map(monkeypatch):
    sizes = []
    interpolate = F.interpolate

    def watched(chunk, size, **options):
        sizes.append(chunk.shape[1])
        return interpolate(chunk, size, **options)

    monkeypatch.setattr(inference.F, "interpolate", watched)
    lowest_best([torch.zeros(150, 4, 8)], (128, 256))
    assert max(sizes) <= 23 and sum(sizes) == 150


def test_a_model_in_train_mode_is_refused():
    with pytest.raises(AssertionError, match="eval"):
        _predict(ColourVotes(3).train(), class_image(np.zeros((4, 4))))


def test_protocol_names_every_choice():
    slide = Inference("slide", (64, 96), (32, 48), (2048, 512)).as_dict()
    assert list(slide) == ["mode", "crop", "stride", "sizes", "flip", "tta"]
    assert slide["crop"] == [64, 96] and slide["stride"] == [32, 48]
    assert slide["sizes"] == {"fit_into": [2048, 512], "scored_at": "original"}
    assert Inference().as_dict() == {
        "mode": "whole",
        "crop": None,
        "stride": None,
        "sizes": {"fit_into": None, "scored_at": "original"},
        "flip": False,
        "tta": "none",
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_breaks_ties_like_the_cpu():
    votes = torch.randint(0, 3, (150, 64, 96), generator=torch.Generator().manual_seed(6)) / 4
    found = lowest_best([votes.cuda()], (64, 96)).cpu()
    assert torch.equal(found, lowest_best([votes], (64, 96)))


def test_overlapping_windows_are_averaged_before_the_resize():
    image = np.random.default_rng(5).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    protocol = Inference("slide", crop=(24, 32), stride=(16, 13), scale=(100, 60))
    model = Position(5)
    picture = network_input(image, protocol)
    height, width = picture.shape[2:]
    total, visits = torch.zeros(5, height, width), torch.zeros(height, width)
    for rows, columns in windows(height, width, protocol.crop, protocol.stride):
        total[:, rows, columns] += model.scores(picture[:, :, rows, columns])[0]
        visits[rows, columns] += 1
    assert visits.max() > visits.min()
    resized = F.interpolate((total / visits)[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
    assert torch.equal(_predict(model, image, protocol).long(), resized.argmax(0))


def _maskige(model, image, protocol):
    return torch.from_numpy(extra_pictures(Normalised(model, MEAN, STD), image, protocol, device=CPU)["maskige"])


def _as_bytes(rgb):
    return (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("cell", "factor", "crop"), [(4, 2, (24, 20)), (8, 1, (24, 24)), (4, 2, (23, 18))])
def test_the_maskige_of_windows_is_stitched_of_the_windows_that_are_measured(cell, factor, crop, flip):
    image = np.random.default_rng(8).integers(0, 256, (41, 50, 3)).astype(np.uint8)
    model, protocol = Decoder(cell, factor), Inference("slide", crop, (16, 13), flip=flip)
    views = []
    for mirrored in (False, True)[: 1 + flip]:
        prepared = network_input(image[:, ::-1].copy() if mirrored else image, protocol)
        total, visits = torch.zeros(3, 41 * factor, 50 * factor), torch.zeros(41 * factor, 50 * factor)
        for rows, columns in windows(41, 50, crop, (16, 13)):
            part = prepared[:, :, rows, columns]
            size = factor * part.shape[2], factor * part.shape[3]
            place = tuple(slice(factor * side.start, factor * side.stop) for side in (rows, columns))
            total[:, *place] += F.interpolate(model.rgb(part), size, mode="bilinear", align_corners=False)[0]
            visits[place] += 1
        views.append((total / visits).flip(-1) if mirrored else total / visits)
    found = _maskige(model, image, protocol)
    assert found.dtype == torch.uint8 and found.shape == (41 * factor, 50 * factor, 3)
    assert (found.int() - _as_bytes(torch.stack(views).mean(0)).int()).abs().max() <= 1  # the order of sums is rounding
    whole = _maskige(model, image, Inference(flip=flip))[: 41 * factor, : 50 * factor]
    assert (found.int() - whole.int()).abs().max() > 9


def test_the_maskige_of_a_whole_image_is_what_the_model_decodes():
    image = np.random.default_rng(9).integers(0, 256, (41, 50, 3)).astype(np.uint8)
    model = Decoder()
    for protocol in (WHOLE, Inference(scale=(70, 60)), Inference("slide", (64, 64), (32, 32), scale=(64, 64))):
        assert torch.equal(_maskige(model, image, protocol), _as_bytes(model.rgb(network_input(image, protocol))[0]))


def test_no_more_than_a_strip_of_decoded_windows_is_kept(monkeypatch):
    image, kept = np.zeros((400, 30, 3), np.uint8), []
    as_picture = inference.as_picture
    monkeypatch.setattr(inference, "as_picture", lambda *views: kept.append(views[0]) or as_picture(*views))
    _maskige(Decoder(), image, Inference("slide", (24, 24), (16, 16)))
    sizes = {view.untyped_storage().nbytes() for view in kept}
    assert sizes == {4 * (2 * 24) * (2 * 30) * 4}  # three channels and the number of windows, float32
