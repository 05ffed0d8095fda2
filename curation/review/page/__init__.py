"""The templates of report and explanation, and what fills them in: pages that need no other file."""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

from clock import FPS
from manifests.summary import show_time


def environment() -> jinja2.Environment:
    """The templates of this folder; everything that they are given is escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {"hours": hours, "percent": lambda share: f"{share:.1%}"}
    return found


def hours(seconds: float) -> str:
    """Seconds as h:mm:ss.ss."""
    return show_time(round(seconds * FPS))


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def as_json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
