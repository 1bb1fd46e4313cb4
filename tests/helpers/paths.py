"""Name the folders that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"  # lies beside the checkout, where there is one: tests that use it skip without it
