"""A virtual clock: the real engine, with the waiting taken out."""

from ragasync.simulation.forecast import Forecast, forecast
from ragasync.simulation.latency import Latency
from ragasync.simulation.replies import ServiceError
from ragasync.simulation.service import ScriptedService
from ragasync.simulation.simulate import simulate
from ragasync.simulation.virtual_time import VirtualClockLoop, run_virtual

__all__ = [
    "Forecast",
    "Latency",
    "ScriptedService",
    "ServiceError",
    "VirtualClockLoop",
    "forecast",
    "run_virtual",
    "simulate",
]
