"""Read UnityEyes2's assets from a folder: pictures, shape model, subdivision tables."""

import hashlib
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from simgan_core.errors import InputError
from simgan_core.simulator.unityeyes.assets import (
    LASH_TEXTURE_PX,
    TEXTURE_PX,
    Assets,
    RawAssets,
    prepare,
)
from simgan_core.simulator.unityeyes.topology import NUM_VERTICES

WHERE = (
    "they are in the public repository alexanderdsmith/UnityEyes2 on GitHub (MIT licence): clone "
    "it and give its folder, the one that holds Assets/"
)

_SKINS, _IRISES = "Resources/SkinTextures", "Resources/IrisTextures"
_SHAPE, _SUBDIVISION = "Resources/ShapePCA", "Resources/SubdivData"
_LASHES = ("lashes_top_1", "lashes_top_2", "lashes_bottom_1", "lashes_bottom_2")
_MARGIN = "Skin Shading/margin_mask_color_2.png"
_MESH = "eye_region.3ds"
_NEEDED = (
    f"{_SHAPE}/mesh_mean.txt", f"{_SHAPE}/pca_components.txt", f"{_SHAPE}/transformed_std.txt",
    f"{_SUBDIVISION}/new_v_idxs_eye_region.txt", f"{_SUBDIVISION}/new_v_weights_eye_region.txt",
    f"{_SUBDIVISION}/new_tris_eye_region.txt", _MESH, _MARGIN,
    *(f"Lashes/{name}.png" for name in _LASHES),
)  # fmt: skip

# 3D Studio's chunks: those that hold others, and those of a mesh.
_CONTAINERS, _OBJECT, _TEXTURE_COORDINATES = (0x4D4D, 0x3D3D, 0x4100), 0x4000, 0x4140


def assets_digest(folder: str) -> str:
    """Return a digest of the names and bytes of all files that are read from a folder."""
    root = _root(folder)
    digest = hashlib.sha256()
    for path in _files(root):
        digest.update(f"{path.relative_to(root)}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def load_assets(folder: str) -> Assets:
    """Read and prepare the assets in a folder, once a process.

    Raises InputError where files are missing or are not what they should be.
    """
    root = _root(folder)
    skins = _skin_names(root)
    irises = sorted((root / _IRISES).glob("eyeball_*.png"))
    components = _numbers(root / _SHAPE / "pca_components.txt", (3 * NUM_VERTICES, None))
    weights = _numbers(root / _SUBDIVISION / "new_v_weights_eye_region.txt", (None, None), ",")
    sources = _numbers(root / _SUBDIVISION / "new_v_idxs_eye_region.txt", weights.shape, ",")
    triangles = _numbers(root / _SUBDIVISION / "new_tris_eye_region.txt", (None,))
    _require(
        root / _SUBDIVISION / "new_tris_eye_region.txt",
        "three numbers a triangle, of vertices that the weights have",
        len(triangles) % 3 == 0 and triangles.min() >= 0 and triangles.max() < len(weights),
    )
    _require(
        root / _SUBDIVISION / "new_v_idxs_eye_region.txt",
        f"numbers of vertices, 0 to {NUM_VERTICES - 1}",
        sources.min() >= 0 and sources.max() < NUM_VERTICES,
    )
    return prepare(
        RawAssets(
            skin_names=tuple(skins),
            skins=[
                (
                    _picture(root / _SKINS / f"{name}_color.png", "RGB"),
                    _picture(root / _SKINS / f"{name}_color_look_down.png", "RGB"),
                    _picture(root / _SKINS / f"{name}_disp.png", "L"),
                )
                for name in skins
            ],
            iris_names=tuple(path.stem.removeprefix("eyeball_") for path in irises),
            irises=[_picture(path, "RGB") for path in irises],
            lashes=[_lash(root / "Lashes" / f"{name}.png") for name in _LASHES],
            margin=_picture(root / _MARGIN, "L"),
            mean=_numbers(root / _SHAPE / "mesh_mean.txt", (NUM_VERTICES, 3)),
            components=components,
            deviation=_numbers(root / _SHAPE / "transformed_std.txt", (components.shape[1],)),
            uv=_texture_coordinates(root / _MESH),
            sources=sources.astype(np.int64),
            weights=weights,
            triangles=triangles.astype(np.int64).reshape(-1, 3),
        )
    )


def _root(folder: str) -> Path:
    """Return the Assets folder in, or at, a folder in which nothing is missing."""
    given = Path(folder)
    root = given / "Assets" if (given / "Assets").is_dir() else given
    if not root.is_dir():
        raise InputError(f"--assets {folder} is no folder; {WHERE}")
    missing = [name for name in _NEEDED if not (root / name).is_file()]
    if not _skin_names(root):
        missing.append(f"{_SKINS}/NAME_color.png with NAME_color_look_down.png and NAME_disp.png")
    if not any((root / _IRISES).glob("eyeball_*.png")):
        missing.append(f"{_IRISES}/eyeball_NAME.png")
    if missing:
        listed = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if missing[4:] else "")
        raise InputError(f"--assets {folder} lacks {listed} (looked for in {root}); {WHERE}")
    return root


def _files(root: Path) -> list[Path]:
    """Return every file that is read."""
    skins = [
        root / _SKINS / f"{name}_{kind}.png"
        for name in _skin_names(root)
        for kind in ("color", "color_look_down", "disp")
    ]
    return [*skins, *sorted((root / _IRISES).glob("eyeball_*.png")), *(root / n for n in _NEEDED)]


def _skin_names(root: Path) -> list[str]:
    """Return the names of skins of which all three pictures are there."""
    names = (path.name.removesuffix("_color.png") for path in (root / _SKINS).glob("*_color.png"))
    return sorted(
        name
        for name in names
        if all((root / _SKINS / f"{name}_{k}.png").is_file() for k in ("color_look_down", "disp"))
    )


def _numbers(
    path: Path, shape: tuple[int | None, ...], delimiter: str | None = None
) -> NDArray[np.float64]:
    """Read a table of numbers; None stands for any length."""
    try:
        found: NDArray[np.float64] = np.loadtxt(
            path, delimiter=delimiter, ndmin=1 if len(shape) == 1 else 2
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} should hold numbers, found: {error}; {WHERE}") from error
    wanted = " × ".join("any" if length is None else str(length) for length in shape)
    fits = all(n is None or n == m for n, m in zip(shape, found.shape, strict=True))
    _require(path, f"{wanted} numbers", fits and found.size > 0 and bool(np.isfinite(found).all()))
    return found


def _picture(path: Path, mode: str) -> NDArray[np.uint8]:
    """Read a picture at the size that textures have here."""
    with _opened(path) as image:
        square = image.convert(mode).resize((TEXTURE_PX, TEXTURE_PX), Image.Resampling.BOX)
    return np.asarray(square)


def _lash(path: Path) -> NDArray[np.uint8]:
    """Read the opacity of lashes: the lower half of the picture, its roots above."""
    with _opened(path) as image:
        _require(path, "a picture with an alpha channel", "A" in image.getbands())
        alpha = image.getchannel("A")
        middle = alpha.height // 2
        half = alpha.crop((0, middle, alpha.width, 2 * middle))
    rows, columns = LASH_TEXTURE_PX
    return np.asarray(half.resize((columns, rows), Image.Resampling.BOX))


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InputError(f"{path} should be a picture, found: {error}; {WHERE}") from error
    return image


def _texture_coordinates(path: Path) -> NDArray[np.float64]:
    """Read the texture coordinates [229, 2] of the first mesh of a 3D Studio file."""
    data = path.read_bytes()
    try:
        body = next(_chunks(data, 0, len(data)))
        (count,) = struct.unpack_from("<H", data, body)
        uv = np.frombuffer(data, "<f4", 2 * count, body + 2).reshape(count, 2)
    except (StopIteration, struct.error, ValueError) as error:
        raise InputError(
            f"{path} should be a 3D Studio mesh with texture coordinates; {WHERE}"
        ) from error
    _require(path, f"a mesh of {NUM_VERTICES} vertices", count == NUM_VERTICES)
    return uv.astype(np.float64)


def _chunks(data: bytes, start: int, end: int) -> Iterator[int]:
    """Yield where the bodies of chunks of texture coordinates begin."""
    while start + 6 <= end:
        kind, length = struct.unpack_from("<HI", data, start)
        body, start = start + 6, start + max(length, 6)
        if kind == _OBJECT:
            # The object's name comes first, with a zero at its end.
            yield from _chunks(data, data.index(b"\0", body) + 1, min(start, end))
        elif kind in _CONTAINERS:
            yield from _chunks(data, body, min(start, end))
        elif kind == _TEXTURE_COORDINATES:
            yield body


def _require(path: Path, expected: str, fits: Any) -> None:
    if not fits:
        raise InputError(f"{path} should hold {expected}; {WHERE}")
