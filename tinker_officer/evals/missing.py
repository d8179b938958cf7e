"""`suite.check()`: what this machine lacks, by eval."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

import attrs

from tinker_officer.errors import OfficerError


@attrs.frozen(repr=False, eq=False)
class Missing(Mapping[str, OfficerError]):
    """The error of each eval that cannot run here, by the eval's name; empty when all can.

    Attributes:
        errors: by eval, in the suite's order.
        asked: how many evals were looked at.
    """

    errors: Mapping[str, OfficerError]
    asked: int

    def __getitem__(self, name: str) -> OfficerError:
        return self.errors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.errors)

    def __len__(self) -> int:
        return len(self.errors)

    def explain(self) -> str:
        """Return what is missing as text, and how to get it."""
        if not self.errors:
            return f"nothing is missing: {self.asked} of {self.asked} evals can run on this machine"
        can = self.asked - len(self)
        rest = "suite.without(*suite.check()) holds them" if can else "nothing can be asked yet"
        return "\n\n".join([*map(str, self.errors.values()), f"{can} of {self.asked} evals can run: {rest}"])

    def __str__(self) -> str:
        return self.explain()

    def __repr__(self) -> str:
        return f"<Missing: {', '.join(self.errors) or 'nothing'}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"
