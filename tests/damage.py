"""Files damaged at random: as disks, networks, careless people and hostile ones damage them.

A way to damage a file changes it in place, by the random numbers that it is given. Ways that suit
one format alone are by its suffix; `damage` picks a file of a folder and a way for it, and
`read_damaged` reads what is left.
"""

import json
import os
import pickle
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from source_samples import Sample

from storage.errors import SourceError

Way = Callable[[Path, random.Random], object]

ABSURD_PX = 60_000
MOST_ROWS = 64
MAY_BE_UNKNOWN = ("head_pose", "pupil_px")


def damage(folder: Path, draw: random.Random) -> str:
    """Damage one file of a folder; returns what was done to which."""
    path = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    ways = [*EVERYWHERE, *2 * BY_SUFFIX.get(path.suffix, [])]
    way = draw.choice(ways)
    way(path, draw)
    return f"{way.__name__.strip('_')} {path.relative_to(folder)}"


def _flip_bits(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 2, 8, 64])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _flip_bits_of_head(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 2, 8])):
        content[draw.randrange(min(256, len(content)))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _cut_off(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def _zero_a_stretch(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    stop = min(len(content), start + draw.choice([4, 64, 512]))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def _fill_a_stretch(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    stop = min(len(content), start + draw.choice([4, 64, 512]))
    content[start:stop] = draw.randbytes(stop - start)
    path.write_bytes(content)


def _drop_a_stretch(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    del content[start : start + draw.choice([1, 4, 64, 512])]
    path.write_bytes(content)


def _empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def _remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def _put_a_folder_there(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _put_noise_there(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(draw.choice([1, 100, 10_000])))


def _swap_with_another(path: Path, draw: random.Random) -> None:
    """Swap with a file of the same suffix where there is one, as a renaming gone wrong does."""
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file()]
    other = draw.choice([o for o in others if o.suffix == path.suffix and o != path] or others)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


EVERYWHERE: list[Way] = [
    _flip_bits,
    _flip_bits_of_head,
    _cut_off,
    _zero_a_stretch,
    _fill_a_stretch,
    _drop_a_stretch,
    _empty,
    _remove,
    _put_a_folder_there,
    _put_noise_there,
    _swap_with_another,
]


# Images


def _claim_absurd_png(path: Path, draw: random.Random) -> None:
    """A head that claims so many pixels, whole in itself."""
    content = path.read_bytes()
    head = struct.pack(">II", *_absurd_size(draw)) + content[24:29]
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + head))
    path.write_bytes(content[:16] + head + crc + content[33:])


def _claim_absurd_jpg(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = content.find(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", *_absurd_size(draw))
    path.write_bytes(content)


def _claim_absurd_bmp(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[18:26] = struct.pack("<ii", *_absurd_size(draw))
    path.write_bytes(content)


def _claim_absurd_tiff(path: Path, draw: random.Random) -> None:
    """Change one entry of the first directory."""
    content = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", content, 4)
    (num_entries,) = struct.unpack_from("<H", content, directory)
    entry = directory + 2 + 12 * draw.randrange(num_entries)
    value = draw.choice([0, 1, 7, ABSURD_PX, 0xFFFFFFFF, draw.randrange(1 << 32)])
    struct.pack_into("<I", content, entry + draw.choice([4, 8]), value)
    path.write_bytes(content)


def _absurd_size(draw: random.Random) -> tuple[int, int]:
    return draw.choice([(ABSURD_PX, ABSURD_PX), (1, ABSURD_PX), (0, 0), (8000, 8000), (1, 1)])


# Labels


def _nest_json(path: Path, draw: random.Random) -> None:
    depth = draw.choice([100, 5_000, 400_000])
    text = draw.choice(["[", '{"a":']) * depth
    path.write_text(draw.choice([text, text + "]" * depth]))


def _swell_json(path: Path, draw: random.Random) -> None:
    document = json.loads(path.read_text())
    document["more"] = "x" * draw.choice([1 << 19, 1 << 24])
    path.write_text(json.dumps(document))


def _change_a_json_value(path: Path, draw: random.Random) -> None:
    """Put a value of another kind, or absurd numbers, in the place of one."""
    document = json.loads(path.read_text())
    key = draw.choice(sorted(document))
    document[key] = draw.choice(
        [
            None,
            1e300,
            [],
            [[]],
            {},
            "(1, 2, 3)",
            ["(1, 2, 3)"],
            ["(1, 2)", "(1, 2, 3)"],
            ["(nan, inf, 0)"] * 8,
            ["(1e999, 1, 1)"] * 8,
            ["(1_000, 1, 1)"] * 8,
            ["(1, 2, 3)"] * 20_000,
            ["(" + "9" * 5_000 + ", 1, 1)"] * 8,
            {"look_vec": "(0, 0, 0, 0)"},
            {"look_vec": "(0, 0, 1, 0)"},
            {"look_vec": "__import__('os').abort()"},
        ]
    )
    path.write_text(json.dumps(document))


def _hostile_pickle(path: Path, draw: random.Random) -> None:
    path.write_bytes(pickle.dumps({"look_vec": _Hostile()}, draw.randrange(6)))


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (66,)


def _absurd_pickle(path: Path, draw: random.Random) -> None:
    path.write_bytes(
        draw.choice(
            [
                b"(" * 60_000,
                b"]" + b"(" * 30_000 + b"t" * 30_000 + b".",
                b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
                b"]r\xff\xff\xff\x7f.",
                b")" + b"q\x00h\x00\x86" * 60 + b"}h\x00K\x01s.",
                b"I" + b"9" * 60_000 + b"\n.",
            ]
        )
    )


def _trick_a_list(path: Path, draw: random.Random) -> None:
    """Add lines that name files elsewhere, or none."""
    lines = path.read_text().splitlines()
    tricks = [
        "../../x left",
        "day01/../../../../etc/passwd.jpg left",
        "/etc/passwd left",
        "day01/0001.jpg middle",
        "day01/0001.jpg left right",
        "day\u0660\u0661/0001.jpg left",
        "day01/0001.jpg\0 left",
        "nan nan nan",
        "1e999 -1e999 1e999",
        "9" * 5_000,
        " ".join(["1"] * 100_000),
        "",
    ]
    for _ in range(draw.choice([1, 3])):
        lines.insert(draw.randrange(len(lines) + 1), draw.choice(tricks))
    path.write_text("\n".join(lines))


def _trick_a_table(path: Path, draw: random.Random) -> None:
    lines = path.read_text().splitlines()
    tricks = [
        "../../x,0,0,-1,1,1,fine",
        "0.png,0,0,-1,1,1,fine",
        "1.png,nan,inf,-1e999,,x,fine",
        "/etc/passwd,0,0,-1,1,1,fine",
        '"unclosed,0,0',
        "file,gaze_x",
        ",,,,,,",
        "x" * 1_000_000,
        "\u0000",
    ]
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(tricks))
    path.write_text("\n".join(lines))


# Arrays


def _claim_an_absurd_shape(path: Path, draw: random.Random) -> None:
    """Change the numbers in the text of a .npy file's head, or of a zarr array's document."""
    content = path.read_bytes()
    pattern = rb"'shape': \((\d+)" if path.suffix == ".npy" else rb"\b(\d+)\b"
    found = draw.choice(list(re.finditer(pattern, content)) or [None])
    if found is not None:
        value = str(draw.choice([0, 1, 7, 100_000, 10**9, 10**12, 2**63])).encode()
        path.write_bytes(content[: found.start(1)] + value + content[found.end(1) :])


def _name_another_type(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    found = draw.choice([b"uint8", b"float64", b"|u1", b"<f8", b"zstd", b"bytes", b"regular"])
    path.write_bytes(content.replace(found, draw.choice([b"O", b"|O", b"<U9", b"x", b"bool"])))


def _objects_in_npy(path: Path, draw: random.Random) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([_Hostile()], dtype=object), allow_pickle=True)


def _absurd_npz(path: Path, draw: random.Random) -> None:
    """An array of a hostile object, or one that claims to be far longer than it is."""
    if draw.random() < 0.5:
        np.savez(path, image=np.array([_Hostile()], dtype=object), allow_pickle=True)
        return
    with np.load(path) as file:
        arrays = dict(file)
    name = draw.choice(sorted(arrays))
    np.savez(path, **arrays)
    content = path.read_bytes()
    length = str(len(arrays[name])).encode()
    claimed = draw.choice([b"9" * 4, b"9" * 9, b"9" * 15])
    start = content.index(f"{name}.npy".encode())
    head = content.index(b"(" + length, start)
    # The head is padded with blanks, of which some go.
    end = content.index(b"\n", head)
    text = content[head:end].replace(b"(" + length, b"(" + claimed, 1)[: end - head]
    path.write_bytes(content[:head] + text + content[end:])


def _swell_mat(path: Path, draw: random.Random) -> None:
    """A compressed variable that is far larger than its file, or claims to be."""
    head = path.read_bytes()[:128]
    if draw.random() < 0.5:
        variable = struct.pack("<II", 14, 1 << 28) + bytes(1 << 24)
    else:
        flags = struct.pack("<IIII", 6, 8, 9, 0)
        shape = struct.pack("<IIii", 5, 8, 1 << 30, draw.choice([1, 1 << 20]))
        name = struct.pack("<II", 1, 9) + b"filenames".ljust(16, b"\0")
        variable = struct.pack("<II", 14, 1 << 30) + flags + shape + name
    packed = zlib.compress(variable)
    path.write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)


BY_SUFFIX: dict[str, list[Way]] = {
    ".png": [_claim_absurd_png],
    ".jpg": [_claim_absurd_jpg],
    ".bmp": [_claim_absurd_bmp],
    ".tiff": [_claim_absurd_tiff],
    ".json": [_nest_json, _swell_json, _change_a_json_value, _claim_an_absurd_shape,
              _name_another_type],
    ".pkl": [_hostile_pickle, _absurd_pickle],
    ".txt": [_trick_a_list],
    ".csv": [_trick_a_table],
    ".npy": [_claim_an_absurd_shape, _objects_in_npy, _name_another_type],
    ".npz": [_absurd_npz],
    ".mat": [_swell_mat],
}  # fmt: skip


def read_damaged(sample: Sample, folder: Path) -> str:
    """Read a sample's folder: "refused" as a source, some rows "rejected", or all "read".

    What is read has to be what a dataset takes; anything else that reading raises is a fault.
    """
    try:
        source = sample.open(folder)
        block = source.read(0, min(len(source), MOST_ROWS))
    except SourceError:
        return "refused"
    assert block.images.shape == (len(block), *source.image_shape)
    assert block.images.dtype == source.dtype
    assert all(block.ids)
    assert len(set(block.ids)) == len(block)
    assert {r.row for r in block.rejections} == set(np.flatnonzero(~block.valid).tolist())
    assert not block.images[~block.valid].any()
    for name, label in block.labels.items():
        known = label[block.valid]
        assert not np.isinf(known).any(), name
        assert name in MAY_BE_UNKNOWN or not np.isnan(known).any(), name
        assert np.isnan(label[~block.valid]).all(), name
        assert name != "gaze" or np.allclose(np.linalg.norm(known, axis=1), 1, atol=1e-4)
    return "rejected" if block.rejections else "read"
