"""A virtual clock: the real engine, with the waiting taken out."""

from ragasync.simulation.forecast import Forecast, forecast
from ragasync.simulation.latency import Latency
from ragasync.simulation.replies import ServiceError
from ragasync.simulation.service import ScriptedService
from ragasync.simulation.simulate import simulate

__all__ = [
    "Forecast",
    "Latency",
    "ScriptedService",
    "ServiceError",
    "forecast",
    "simulate",
]
