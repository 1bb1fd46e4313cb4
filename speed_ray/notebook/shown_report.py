"""Show a run's report inside a notebook, apart from the notebook's own page."""

from dataclasses import dataclass, field
from html import escape

HEIGHT = 720  # pixels; the report scrolls inside them


@dataclass(frozen=True)
class ShownReport:
    """Holds a report that was written: `path` says where, and a notebook shows it in the output of its cell.

    >>> import speed_ray
    >>> speed_ray.Run("runs/first").report().path
    'runs/first/report.html'
    """

    path: str
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        """Show it in a frame: its style and policy stay its own, and its script reaches nothing of the notebook."""
        return (
            f'<iframe title="{escape(self.path)}" srcdoc="{escape(self.html)}" sandbox="allow-scripts" '
            f'width="100%" height="{HEIGHT}" style="border: 1px solid #8888"></iframe>'
        )
