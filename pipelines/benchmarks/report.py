"""How a benchmark's figures are printed."""

from collections.abc import Sequence


def report(lines: Sequence[tuple[str, str]]) -> None:
    """Aligned lines of a name and a value."""
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}", flush=True)
    print()
