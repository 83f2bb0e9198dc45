"""From a template and its context to one self-contained file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleflm import __version__
from teleflm.errors import MissingExtraError
from teleflm.files import write_whole
from teleflm.parallel.memory import size_text
from teleflm.report import figures, words


@dataclass(frozen=True)
class Chart:
    """A drawing with what a reader who cannot see it is told."""

    svg: str
    alt: str
    title: str = ""


def chart(
    name: str, size: tuple[float, float], alt: str, draw: Callable[[Any], None], title: str = ""
) -> Chart:
    """A chart of the page; see `figures.svg`."""
    return Chart(figures.svg(name, size, draw), alt, title)


def write_page(path: Path, template: str, **context: Any) -> Path:
    """Render a template of this package to `path`.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", "report") from None
    environment = Environment(
        loader=PackageLoader("teleflm.report", ""),
        # Samples and titles are text from elsewhere: none of it is markup.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS, size=size_text)
    page = environment.get_template(template).render(version=__version__, **context)
    write_whole(path, page)
    return path
