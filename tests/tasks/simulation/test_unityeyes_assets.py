"""Assets folders that are missing, incomplete or damaged are refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from simgan_core.errors import InputError
from tasks.simulation.unityeyes_assets import assets_digest, load_assets
from tests.unityeyes_folder import IRISES, SKINS, write_assets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole folder."""
    return write_assets(tmp_path / "assets")


def test_the_repository_and_its_assets_folder_are_both_taken(folder: Path) -> None:
    assets = load_assets(str(folder))
    assert assets.skin_names == SKINS
    assert assets.iris_names == IRISES
    assert load_assets(str(folder / "Assets")).uv.shape == assets.uv.shape
    assert assets_digest(str(folder)) == assets_digest(str(folder / "Assets"))


def test_no_folder_is_an_error_that_says_where_the_assets_are_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is no folder.*UnityEyes2 on GitHub \(MIT"):
        load_assets(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("Resources/ShapePCA/mesh_mean.txt", "mesh_mean.txt"),
        ("eye_region.3ds", "eye_region.3ds"),
        ("Lashes", "lashes_top_1.png"),
        ("Resources/SkinTextures", "NAME_color.png"),
        ("Resources/IrisTextures", "eyeball_NAME.png"),
    ],
)
def test_what_is_missing_is_named(folder: Path, missing: str, named: str) -> None:
    path = folder / "Assets" / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(InputError, match=f"lacks .*({named})"):
        load_assets(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("Resources/ShapePCA/mesh_mean.txt", b"1 2 x", "should hold numbers"),
        ("Resources/ShapePCA/mesh_mean.txt", b"1 2 3", "should hold 229 × 3 numbers"),
        ("Resources/ShapePCA/transformed_std.txt", b"nan\n1\n1\n", "should hold 3 numbers"),
        ("Resources/SubdivData/new_tris_eye_region.txt", b"0\n1\n9999\n", "three numbers a triang"),
        ("Resources/SubdivData/new_tris_eye_region.txt", b"0\n1\n2\n", "leave an opening"),
        ("Resources/SkinTextures/f01_color.png", b"no picture", "should be a picture"),
        ("eye_region.3ds", b"\x4d\x4d\x06\x00\x00\x00", "a 3D Studio mesh"),
    ],
)
def test_damage_is_an_error_that_names_the_file(
    folder: Path, name: str, content: bytes, expected: str
) -> None:
    (folder / "Assets" / name).write_bytes(content)
    with pytest.raises(InputError, match=expected):
        load_assets(str(folder))


def test_another_picture_is_another_digest(folder: Path) -> None:
    before = assets_digest(str(folder))
    (folder / "Assets/Resources/SkinTextures/f01_disp.png").write_bytes(b"other")
    assert assets_digest(str(folder)) != before


def test_the_real_assets_are_whole() -> None:
    real = Path(__file__).parents[4] / "shared" / "data" / "unityeyes2"
    if not real.is_dir():
        pytest.skip("UnityEyes2's assets are not here")
    assets = load_assets(str(real))
    assert len(assets.skin_names) == 20
    assert np.isfinite(assets.uv).all()
