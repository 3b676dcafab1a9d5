"""Benchmark the label gate on eyes of the built-in simulator that were moved by known distances.

    python -m benchmarks.label_gate              # 1,500 eyes a look

Each row: eyes as a whole moved to the right, with light irises, with dark ones, and with light ones
that are dark afterwards. "Other eyes" are pairs in the wrong order whose pupils are more than
2.5 px apart. The time is that of the whole inspection, of one thread if PyTorch has one.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from simgan_core.quality.gate import inspect
from simgan_core.simulator.appearance import SYNTHETIC
from simgan_core.simulator.eyes import Rendered, render, sample_scenes

GATE_PX = 2.5
ALBEDOS = {"light": (0.16, 0.5), "dark": (0.012, 0.06)}
LOOKS = (("light", "light"), ("dark", "dark"), ("light", "dark"))
MOVES_PX = range(7)
SEED = 31


def main() -> None:
    """Print what the gate passes and what it measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="eyes of a look")
    count = parser.parse_args().count
    eyes = {name: eyes_with(albedo, count) for name, albedo in ALBEDOS.items()}
    print(f"irises before and after, moved by: passed by a gate of {GATE_PX} px; mean measured")
    for before, after in LOOKS:
        for moved_px in MOVES_PX:
            one, other = eyes[before], np.roll(eyes[after].images, moved_px, axis=2)
            begun = time.process_time()
            found = inspect(one.images, other, one.pupil_px)
            microseconds = (time.process_time() - begun) / count * 1e6
            shift = found.shift
            assert shift is not None
            print(
                f"{before}, {after}, {moved_px} px: {share_passed(found.reasons(GATE_PX)):.1%}; "
                f"{shift.summary()['mean']:.2f} px ({microseconds:.0f} µs a pair)"
            )
    for name, each in eyes.items():
        print(f"{name}, other eyes: {passed_of_others(each):.1%}")


def eyes_with(iris_albedo: tuple[float, float], count: int) -> Rendered:
    """Render the same scenes with irises as light as given."""
    person = SYNTHETIC.person.model_copy(update={"iris_albedo": iris_albedo})
    look = SYNTHETIC.model_copy(update={"person": person})
    return render(sample_scenes("synthetic", count, SEED, appearance=look), "crop", 35, 55)


def passed_of_others(eyes: Rendered) -> float:
    """Return the share passed of images paired with their neighbours', far from them."""
    images, pupil_px = (np.roll(each, 1, axis=0) for each in (eyes.images, eyes.pupil_px))
    far: NDArray[np.bool_] = np.linalg.norm(pupil_px - eyes.pupil_px, axis=1) > GATE_PX
    found = inspect(eyes.images[far], images[far], eyes.pupil_px[far])
    return share_passed(found.reasons(GATE_PX))


def share_passed(reasons: list[str | None]) -> float:
    """Return the share of images that the gate gives no reason to reject."""
    return float(np.mean([reason is None for reason in reasons]))


if __name__ == "__main__":
    main()
