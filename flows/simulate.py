"""Render the built-in simulators in the layouts of UnityEyes, MPIIGaze and NYU hands."""

from typing import Literal

from prefect import flow

from simgan_core.simulator.eyes import NUM_REAL_PEOPLE
from tasks.simulate import simulate_hand, simulate_real, simulate_synthetic


@flow(name="simulate", flow_run_name="simulate-{domain}-{count}")
def simulate(
    domain: Literal["synthetic", "real"],
    out: str,
    count: int,
    seed: int,
    people: int = NUM_REAL_PEOPLE,
) -> str:
    """Render `count` images of one domain into the folder `out`; the same seed, the same files.

    The real domain is of so many people, p00, p01, …; in the synthetic one everyone is another.
    """
    if domain == "synthetic":
        return simulate_synthetic(out, count, seed)
    return simulate_real(out, count, seed, people)


@flow(name="simulate-hands", flow_run_name="simulate-{domain}-hands-{count}")
def simulate_hands(domain: Literal["synthetic", "real"], out: str, count: int, seed: int) -> str:
    """Render `count` depth frames of hands into the folder `out`; the same seed, the same files."""
    return simulate_hand(out, domain, count, seed)
