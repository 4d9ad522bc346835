"""Position tables: made, resized, refused."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gss.errors import CheckpointError
from gss.nets.positions import _spread as spread
from gss.nets.positions import absolute, relative, sine

CORNERS = (0, 192, 384, 576)  # first channels of the four quarters of 768


def test_the_sine_table_is_that_of_cae() -> None:
    table = sine((14, 14), 768)
    assert table.shape == (1, 197, 768)
    assert table.dtype == torch.float32
    assert not table[:, 0].any()
    grid = table[0, 1:].unflatten(0, (14, 14))
    for quarter, expected in enumerate((0, 1, 0, 1)):
        assert (grid[0, 0, 192 * quarter : 192 * (quarter + 1)] == expected).all()
    torch.testing.assert_close(grid[3, 5, [0, 384]], torch.tensor([math.sin(3), math.sin(5)]))
    assert table.double().sum().item() == pytest.approx(69594.5, abs=1)


def test_the_resized_table_is_that_of_cae() -> None:
    old = sine((14, 14), 768)
    table = absolute(old, (32, 32))
    assert table.shape == (1, 1025, 768)
    assert torch.equal(table[:, 0], old[:, 0])
    assert table.double().sum().item() == pytest.approx(363635.8, abs=5)
    grid = table[0, 1:].unflatten(0, (32, 32))
    expected = {
        (0, 0): (-0.0917, 1.0501, -0.0917, 1.0501),
        (0, 31): (-0.0917, 1.0501, 0.5244, 0.9144),
        (16, 16): (0.4071, 0.9342, 0.4071, 0.9342),
    }
    for place, values in expected.items():
        torch.testing.assert_close(grid[place][list(CORNERS)], torch.tensor(values), atol=1e-4, rtol=0)


def test_antialiasing_would_give_another_table() -> None:
    old = sine((14, 14), 768)
    image = old[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    other = F.interpolate(image, size=(32, 32), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    assert (absolute(old, (32, 32))[:, 1:] - other).abs().max().item() == pytest.approx(0.052, abs=5e-4)


def test_a_table_of_the_right_grid_is_kept() -> None:
    table = torch.randn(1, 1 + 16, 8)
    assert absolute(table, (4, 4)) is table
    relatives = torch.randn(7 * 7 + 3, 2)
    assert relative(relatives, (4, 4)) is relatives


def test_rows_before_the_grid_and_the_type_are_kept() -> None:
    table = torch.randn(1, 3 + 16, 8, dtype=torch.bfloat16)
    new = absolute(table, (4, 6), prefix=3)
    assert new.shape == (1, 3 + 24, 8)
    assert new.dtype == torch.bfloat16
    assert torch.equal(new[:, :3], table[:, :3])


def test_distances_are_spread_geometrically() -> None:
    distances = spread(27, 63)
    assert distances[13] == 0
    assert np.array_equal(distances, -distances[::-1])
    assert distances[15] - distances[14] == pytest.approx(1.1349178, abs=1e-6)
    assert distances[-1] == pytest.approx(31.00018, abs=1e-4)


def test_a_relative_table_is_read_off_a_cubic_spline() -> None:
    """A polynomial of degree three in both distances is its own spline."""

    def polynomial(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        x, y = rows[:, None] / 31, columns[None] / 31
        return x**3 - 2 * x * y**2 + y**3 - 0.5 * y + 0.25

    known = spread(27, 63)
    table = torch.from_numpy(np.append(polynomial(known, known).ravel(), [5.0, 6.0, 7.0]))[:, None]
    new = relative(torch.cat([table, -table], 1), (32, 32))
    assert new.shape == (3972, 2)
    whole = np.arange(-31.0, 32.0)
    assert np.allclose(new[:-3, 0].numpy(), polynomial(whole, whole).ravel(), atol=1e-5)
    assert torch.equal(new[:, 0], -new[:, 1])
    assert new[-3:, 0].tolist() == [5, 6, 7]


def test_a_relative_table_keeps_rows_and_columns_apart() -> None:
    distances = torch.arange(-13.0, 14.0)
    table = torch.cat([distances[:, None].expand(27, 27).flatten(), torch.zeros(3)])[:, None]  # grows with the row
    new = relative(table, (16, 20))[:-3].view(31, 39)
    assert torch.allclose(new, new[:, :1].expand_as(new), atol=1e-5)
    assert (new.diff(dim=0) > 0).all()
    assert relative(table.to("meta"), (16, 20)).shape == (31 * 39 + 3, 1)


def test_tables_that_are_not_square_are_refused() -> None:
    with pytest.raises(CheckpointError, match="positions of 12 patches"):
        absolute(torch.zeros(1, 13, 8), (4, 4))
    with pytest.raises(CheckpointError, match="19 relative positions"):
        relative(torch.zeros(19, 2), (4, 4))
    with pytest.raises(CheckpointError, match="4 relative positions"):
        relative(torch.zeros(4, 2), (4, 4))
