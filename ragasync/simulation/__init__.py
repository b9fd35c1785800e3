"""
Simulations: the real engine on a virtual clock, to see a job before paying for it.

    latency.py       Latency: distributions of seconds per call, and the draws by seed and key
    service.py       ScriptedService, ServiceError: latencies, errors, limits and outages
    simulate.py      simulate: the engine on a virtual clock; VirtualClockLoop: that clock
    pilot.py         Pilot: the attempts of a real run; Scenario: its settings and changes to them
    resampling.py    BootstrapService: calls drawn from a pilot; the pilot's overhead
    projection.py    from simulated runs to all items, with intervals; WhatIf: one setting changed
    forecast.py      forecast, Forecast; ForecastExplorer: a panel with sliders

`simulate` copies limiters and retry policy, and runs the engine over the numbers from 0 with a
ScriptedService on a virtual clock. `forecast` reads the attempts of a pilot and runs the engine
in the same way with a BootstrapService that repeats them. A few hundred calls are simulated, and
projected to all items.
"""

from ragasync.simulation.forecast import Forecast, forecast
from ragasync.simulation.latency import Latency
from ragasync.simulation.service import ScriptedService, ServiceError
from ragasync.simulation.simulate import simulate

__all__ = ["Forecast", "Latency", "ScriptedService", "ServiceError", "forecast", "simulate"]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)
