"""A simulated organization of agents: all four patterns in motion, with failures, on any NATS server."""

from console.demo.simulation import DemoOptions, Simulation, headless

__all__ = ["DemoOptions", "Simulation", "headless"]
