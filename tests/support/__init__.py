"""What tests of several rooms share: the oracle, the faults, strategies, and runs of two units side by side."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
