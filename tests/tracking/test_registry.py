"""Names of registered models: MLflow takes none with a slash."""

import pytest

from gss.tracking.registry import model_name


@pytest.mark.parametrize(
    ("experiment", "name"),
    [
        ("toy", "gss-toy"),
        ("camvid_pixel/seed_1", "gss-camvid_pixel"),
        ("toy+2c07c61b", "gss-toy+2c07c61b"),
        ("camvid_pixel/seed_1+2c07c61b", "gss-camvid_pixel+2c07c61b"),
    ],
)
def test_seeds_are_versions_of_one_model(experiment: str, name: str) -> None:
    assert model_name(experiment) == name
