"""Refine a folder of images with a trained refiner: one PNG for each image, under its name.

python examples/refine_folder.py renders --refiner refiner-0123456789ab --to refined
python examples/refine_folder.py renders --refiner models:/refiner@champion --to refined

Images (png, jpg, bmp, tiff) are cropped to the refiner's proportions, resized to its size and
preprocessed as its training images were. For labels, counts, resuming and millions of images use
`simgan ingest folder` and `simgan refine` instead: this keeps pictures alone.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

from simgan_core.compute.settings import choose_inference_settings
from simgan_core.data.preprocess import preprocess
from simgan_core.errors import InputError
from simgan_core.inference import BulkRefiner
from storage.errors import StorageError
from storage.sources.formats.folder import FolderOptions
from tasks.runtime.devices import default_device
from tasks.runtime.refiners import open_refiner
from tasks.runtime.styles import style_numbers

IMAGES_AT_ONCE = 1024


def refine_folder(folder: Path, refiner: str, to: Path) -> int:
    """Refine the images in `folder` and the folders in it; return how many were written."""
    if to.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"--to {to} is in {folder}, whose images stay as they are: name another")
    loaded = open_refiner(refiner)
    size = (loaded.image_height, loaded.image_width)
    source = FolderOptions(folder=folder, size=size, channels=loaded.channels).open()
    compute = choose_inference_settings(default_device(), image_size=size)
    refine = BulkRefiner(loaded.refiner, compute, (*size, loaded.channels))
    num_written = 0
    for start in range(0, len(source), IMAGES_AT_ONCE):
        block = source.read(start, min(start + IMAGES_AT_ONCE, len(source)))
        for rejection in block.rejections:
            print(f"{rejection.id}: left out, {rejection.reason}", file=sys.stderr)
        style = style_numbers(block.ids, 1, 0, refine.style_size) if refine.style_size else None
        refined = refine(preprocess(block.images, loaded.preprocess), style)
        for name, image, valid in zip(block.ids, refined, block.valid, strict=True):
            if valid:
                path = to / (name if name.lower().endswith(".png") else f"{name}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.squeeze(axis=2) if loaded.channels == 1 else image).save(path)
                num_written += 1
        print(f"{start + len(block)} of {len(source)} images", file=sys.stderr)
    return num_written


def main() -> int:
    """Parse, refine, print how many."""
    parser = argparse.ArgumentParser(description="Refine a folder of images.")
    parser.add_argument("folder", type=Path, help="png, jpg, bmp and tiff; nested folders too")
    parser.add_argument("--refiner", required=True, help="id, MLflow model URI or refiner.pt")
    parser.add_argument("--to", type=Path, required=True, help="folder for the refined images")
    given = parser.parse_args()
    try:
        num_written = refine_folder(given.folder, given.refiner, given.to)
    except (InputError, StorageError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{num_written} refined images in {given.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
