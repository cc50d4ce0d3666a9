"""What every test shares: hypothesis profiles and ``--slow``.

``HYPOTHESIS_PROFILE=explore`` looks for new examples at random; the default ``ci`` draws the same ones every time.
Tests marked ``slow`` are skipped unless ``--slow`` is given (or ``-m`` asks for them),
those marked ``icarus`` where Icarus is not installed.
"""

from __future__ import annotations

import os

# The matrices here are small: more threads than one a test process only wait for each other. Before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from kappa_rtl.sim import cosim
from kappa_rtl.sim.runner import available
from kappa_rtl.sim.testbench.bank import KEEP
from support.browser import browser as browser  # a fixture

NO_ICARUS = "needs Icarus Verilog: iverilog and vvp on PATH"

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    print_blob=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", settings.get_profile("ci"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--keep", metavar="FOLDER", help="run a failing bench again and keep its Verilog, log and waveform there")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--slow"):
        cosim.OPTIMISATION = "-O0"
    if config.getoption("--keep"):
        os.environ[KEEP] = os.path.abspath(config.getoption("--keep"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = config.getoption("--slow") or any(word in config.getoption("-m") for word in ("slow", "ci"))
    icarus = available("icarus")
    for item in items:
        if "slow" in item.keywords and not slow:
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if "icarus" in item.keywords and not icarus:
            item.add_marker(pytest.mark.skip(reason=NO_ICARUS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line on what was not tested for want of Icarus."""
    skipped = sum(NO_ICARUS in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.write_line(
            f"NOTICE: {skipped} tests were skipped for want of Icarus Verilog (Debian: iverilog)", yellow=True
        )
