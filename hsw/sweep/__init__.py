"""A sweep around its jobs. Run folders of 0.1.0 name hsw.sweep.SweepCallback."""

from hsw.sweep.callback import SweepCallback

__all__ = ["SweepCallback"]
