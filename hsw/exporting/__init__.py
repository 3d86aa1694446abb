"""A run's policy in forms that need neither hsw nor, as ONNX, torch."""

from hsw.exporting.folder import export_run

__all__ = ["export_run"]
