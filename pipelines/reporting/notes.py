"""What could not be read, collected for the page instead of ending the report."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stage1_proposals.common.errors import UserError


@dataclass
class Notes:
    """One line for everything that was passed over.

    Attributes:
        root: what paths are shown relative to.
    """

    root: Path
    lines: list[str] = field(default_factory=list)

    def shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    @contextmanager
    def on(self, path: Path) -> Iterator[None]:
        """Note what is wrong with a file instead of raising: it cannot be read, or is not what its name says."""
        try:
            yield
        except (OSError, UserError, ArithmeticError, LookupError, TypeError, ValueError, SyntaxError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.lines.append(f"{self.shown(path)}: {reason or type(error).__name__}")
        except RecursionError:
            self.lines.append(f"{self.shown(path)}: nested too deeply")

    def json(self, path: Path, kind: type) -> Any:
        """A JSON file's value; None when it is not there, or (with a note) is not JSON of this kind."""
        if path.exists():
            with self.on(path):
                value = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(value, kind):
                    return value
                self.lines.append(f"{self.shown(path)}: holds something else than expected")
        return None
