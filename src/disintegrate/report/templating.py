"""The templates of the pages, and how they write numbers."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from disintegrate.report.findings import number


def template(name: str) -> Template:
    """A page's template; what it is not given is an error."""
    environment = Environment(
        loader=PackageLoader("disintegrate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = number
    return environment.get_template(f"{name}.html.j2")
