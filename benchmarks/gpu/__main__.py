"""python -m benchmarks.gpu PART: run one part here, and print its findings as JSON lines."""

from __future__ import annotations

import json
import sys

from .parts import find


def main(argv: list[str]) -> int:
    """Run the part that `argv` names."""
    try:
        (part,) = find(argv)
    except ValueError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    for finding in part.run():
        print(json.dumps(finding), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
