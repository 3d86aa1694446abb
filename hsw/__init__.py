"""hsw: a Hydra-configured experiment toolkit for reinforcement learning."""

__version__ = "0.1.0"
