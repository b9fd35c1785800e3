"""A virtual clock: the real engine, with the waiting taken out."""

from ragasync.simulation.virtual import VirtualClockLoop, run_virtual

__all__ = ["VirtualClockLoop", "run_virtual"]
