"""Simulated scenes under the name of version 0.1.0, for scripts that import it; they live in `training/simulate.py`."""

from .training.simulate import SimulatedScene, Simulation, simulate, truth, write_scene

__all__ = ["SimulatedScene", "Simulation", "simulate", "truth", "write_scene"]
