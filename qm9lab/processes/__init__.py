"""Run code in processes of their own, and say how they ended."""

from .scripts import Outcome, run_script

__all__ = ["Outcome", "run_script"]
