"""Interactive charts in a page that needs nothing from elsewhere: Vega-Lite by Altair, its libraries within the page.

The page holds data and specifications, and the browser draws. No text of the data can become a script, and nothing is evaluated
that is not in the page: it says so to the browser.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

DIGITS = 5
"""Of the numbers in a page."""

ROOM = 'pip install "kappa-rtl[explore]"'


def altair() -> Any:
    """The module.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import altair as module  # here: it takes half a second
    except ImportError:
        raise ValueError(f"the page must have Altair: {ROOM}") from None
    return module


def library() -> Any:
    """What draws, as the text of a script.

    Raises:
        ValueError: vl-convert-python, which has it, is not installed.
    """
    return Markup(_bundler().javascript_bundle().replace("</script", "<\\/script"))


def ready() -> None:
    """Refuse to begin what could not be shown.

    Raises:
        ValueError: Altair or vl-convert-python is not installed.
    """
    altair()
    _bundler()


def _bundler() -> Any:
    try:
        import vl_convert as module
    except ImportError:
        raise ValueError(f"the page must have vl-convert-python: {ROOM}") from None
    return module


def beside(parts: Sequence[Any], *parameters: Any, independent: Sequence[str] = ()) -> dict[str, Any]:
    """Charts beside each other, as Vega-Lite.

    Args:
        parameters: which all of them have.
        independent: channels of which each chart has a scale of its own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one parameter is in all of them
        chart = altair().concat(*parts, columns=3)
        if parameters:
            chart = chart.add_params(*parameters)
        if independent:
            chart = chart.resolve_scale(**dict.fromkeys(independent, "independent"))
        made: dict[str, Any] = (
            chart.configure_view(stroke="#dddddd")
            .configure_axis(gridColor="#eeeeee")
            .configure_legend(orient="top", columns=4)
            .to_dict(validate=False)
        )
    return made


def brief(value: Any) -> Any:
    """A number of few digits; None in the place of one that JSON does not know."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def script(value: Any) -> Any:
    """A value as it may stand in a script."""
    return Markup(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))


def render(template: Path, **names: Any) -> str:
    """A page from a template, which extends ``vega.html.j2``; every text is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(library=library(), **names)
