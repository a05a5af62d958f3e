"""Let the Python that runs this see the working tree: new modules at once, before any installed copy."""

from __future__ import annotations

import sysconfig
from pathlib import Path

DEV = Path(__file__).resolve().parent / "dev"


def main() -> None:
    """Write a ``.pth`` file that sorts before the one of the editable install."""
    (Path(sysconfig.get_path("purelib")) / "__dev__.pth").write_text(f"{DEV}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
