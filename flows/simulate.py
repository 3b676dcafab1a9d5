"""Render the built-in simulator's domains into folders laid out like UnityEyes and MPIIGaze."""

from typing import Literal

from prefect import flow

from tasks.simulate import simulate_real, simulate_synthetic


@flow(name="simulate", flow_run_name="simulate-{domain}-{count}")
def simulate(domain: Literal["synthetic", "real"], out: str, count: int, seed: int) -> str:
    """Render `count` images of one domain into the folder `out`; the same seed, the same files."""
    if domain == "synthetic":
        return simulate_synthetic(out, count, seed)
    return simulate_real(out, count, seed)
