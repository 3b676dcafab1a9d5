"""Render the built-in simulator's domains into the layouts that ingestion reads."""

import json
import logging
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prefect import task

from simgan_core.errors import InputError
from simgan_core.simulator.eyes import NUM_REAL_PEOPLE, Scenes, render, sample_scenes
from simgan_core.simulator.hands import WALL_MM, HandShot, shoot_hands
from storage.sources.formats.mpiigaze import EyeArrays, write_evaluation_list, write_mpiigaze_day
from storage.sources.formats.nyu_hand import (
    CUBE_MM,
    frame_path,
    write_nyu_frame,
    write_nyu_labels,
)
from storage.sources.formats.unityeyes import write_unityeyes_pair
from storage.sources.head_pose import to_unityeyes
from tasks.runtime.policies import CACHE
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 500
FRAMES_PER_DAY = 50
FRAMES_AT_ONCE = 64
FRAME_HEIGHT, FRAME_WIDTH = 480, 640
# Says what a folder holds; its name keeps it out of the way of the layouts' readers.
MARK = ".simulation"


@task(name="simulate-synthetic", cache_policy=CACHE)
def simulate_synthetic(out: str, count: int, seed: int) -> str:
    """Write N.jpg + N.json for N = 1 … count; pairs that an earlier run left are kept."""
    folder = claim_folder(Path(out), "synthetic", count, seed)
    started = time.monotonic()
    for start in range(0, count, PAIRS_AT_ONCE):
        numbers = [
            number
            for number in range(start + 1, min(start + PAIRS_AT_ONCE, count) + 1)
            if not (folder / f"{number}.jpg").exists()
        ]
        if numbers:
            scenes = sample_scenes("synthetic", min(PAIRS_AT_ONCE, count - start), seed, start)
            _write_pairs(folder, numbers, scenes[np.array(numbers) - start - 1])
        _say_progress("synthetic", start + PAIRS_AT_ONCE, count, started)
    return out


@task(name="simulate-real", cache_policy=CACHE)
def simulate_real(out: str, count: int, seed: int, num_people: int = NUM_REAL_PEOPLE) -> str:
    """Write `count` eyes of people in turn, left and right, as MPIIGaze's files and lists.

    Files hold both eyes of a frame; the lists leave out the last right one of an odd `count`.
    """
    num_frames = -(-count // 2)
    scenes = sample_scenes("real", 2 * num_frames, seed, num_people=num_people)
    folder = claim_folder(Path(out), f"real, {num_people} people", count, seed)
    started = time.monotonic()
    for person in range(num_people):
        frames = np.arange(person, num_frames, num_people)
        for first in range(0, len(frames), FRAMES_PER_DAY):
            shown = frames[first : first + FRAMES_PER_DAY]
            _write_day(folder, person, first // FRAMES_PER_DAY + 1, shown, scenes)
        num_right = int(np.count_nonzero(2 * frames + 1 < count))
        _write_list(folder, person, {"left": len(frames), "right": num_right})
        _say_progress("real", (person + 1) * 2 * len(frames), count, started)
    return out


@task(name="simulate-hand", cache_policy=CACHE)
def simulate_hand(out: str, domain: Literal["synthetic", "real"], count: int, seed: int) -> str:
    """Write depth frames 1 … count and labels.txt; frames that an earlier run left are kept.

    The hand is in the middle of the frame, and is drawn without perspective within its cube, as
    the simulator has it.
    """
    folder = claim_folder(Path(out), f"{domain} hands", count, seed)
    started = time.monotonic()
    joints = []
    for start in range(0, count, FRAMES_AT_ONCE):
        num_shots = min(FRAMES_AT_ONCE, count - start)
        for number, shot in enumerate(shoot_hands(domain, num_shots, seed, start), start + 1):
            if not frame_path(folder, number, domain).exists():
                write_nyu_frame(folder, number, _hand_frame_mm(shot.depth_mm), domain)
            joints.append(_joints_uvd(shot))
        _say_progress(f"{domain} hand", start + FRAMES_AT_ONCE, count, started)
    write_nyu_labels(folder / "labels.txt", np.stack(joints))
    return out


def _hand_frame_mm(depth_mm: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Return the camera's frame [480, 640], in mm: the cube [S, S] in its middle, a wall behind."""
    frame = np.full((FRAME_HEIGHT, FRAME_WIDTH), WALL_MM, np.int32)
    half = len(depth_mm) // 2
    middle_y, middle_x = FRAME_HEIGHT // 2, FRAME_WIDTH // 2
    cube = np.where(np.isnan(depth_mm), 0, np.minimum(depth_mm, WALL_MM))
    frame[middle_y - half : middle_y + half, middle_x - half : middle_x + half] = np.rint(cube)
    return frame


def _joints_uvd(shot: HandShot) -> NDArray[np.floating[Any]]:
    """Return u, v in pixels, the first pixel's middle at 0, and the distance in mm [J, 3]."""
    middle = np.array([FRAME_WIDTH / 2, FRAME_HEIGHT / 2]) - 0.5
    uv = shot.joints_mm[:, :2] * (len(shot.depth_mm) / CUBE_MM) + middle
    return np.concatenate([uv, shot.joints_mm[:, 2:] + shot.distance_mm], axis=1)


def claim_folder(folder: Path, domain: str, count: int, seed: int, **more: object) -> Path:
    """Mark the folder as this simulation's; refuse one that holds anything else."""
    if count < 1 or seed < 0:
        raise InputError(
            f"a simulation needs count ≥ 1 and seed ≥ 0, got {count} and {seed}; nothing is written"
        )
    mark = folder / MARK
    claim = {"domain": domain, "count": count, "seed": seed, **more}
    claim.setdefault("recipe", recipe_version("simulate"))
    # Empty where a run was killed, or the power cut, while it marked the folder.
    if text := mark.read_text() if mark.exists() else "":
        found = json.loads(text)
        if found != claim:
            raise InputError(
                f"{folder} holds another simulation ({found}), asked for was {claim}; choose "
                "another --out or remove the folder"
            )
    elif folder.exists() and any(path != mark for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty; choose another --out or empty it")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(claim))
    return folder


def _write_pairs(folder: Path, numbers: list[int], scenes: Scenes) -> None:
    rendered = render(scenes, "frame")
    head_pose_deg = to_unityeyes(scenes.head_pose)
    for row, number in enumerate(numbers):
        gaze_x, gaze_y, gaze_z = scenes.gaze[row]
        write_unityeyes_pair(
            folder,
            number,
            frame=rendered.images[row, :, :, 0],
            look_vec_y_up=np.array([gaze_x, -gaze_y, gaze_z]),
            head_pose_deg=head_pose_deg[row],
            iris_px=rendered.iris_px[row],
            lid_margin_px=rendered.lid_px[row],
            caruncle_px=rendered.caruncle_px[row],
            details={},
        )


def _write_day(
    folder: Path, person: int, day: int, frames: NDArray[np.intp], scenes: Scenes
) -> None:
    """Write both eyes of these frames: scenes 2i and 2i + 1 are frame i's left and right."""
    left, right = scenes[2 * frames], scenes[2 * frames + 1]
    write_mpiigaze_day(
        folder,
        person=f"p{person:02d}",
        day=day,
        filenames=[f"{number + 1:04d}.jpg" for number in range(len(frames))],
        left=_eyes(left),
        right=_eyes(right),
    )


def _eyes(scenes: Scenes) -> EyeArrays:
    images = render(scenes, "crop").images
    return EyeArrays(image=images[..., 0], gaze=scenes.gaze, pose=scenes.head_pose)


def _write_list(folder: Path, person: int, num_frames: dict[str, int]) -> None:
    lines = [
        f"day{frame // FRAMES_PER_DAY + 1:02d}/{frame % FRAMES_PER_DAY + 1:04d}.jpg {side}"
        for side, num in num_frames.items()
        for frame in range(num)
    ]
    write_evaluation_list(folder, f"p{person:02d}", lines)


def _say_progress(domain: str, done: int, count: int, started: float) -> None:
    done = min(done, count)
    rate = done / max(time.monotonic() - started, 1e-9)
    words = "rendered %s of %s %s images, %.0f a second"
    at = position(f"rendering {domain} images", done, count)
    logger.info(words, f"{done:,}", f"{count:,}", domain, rate, extra=at)
    if done == count:
        logger.info("%s %s images rendered", f"{count:,}", domain)
