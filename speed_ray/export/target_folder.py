"""Make the folder of an export appear at once and whole, and know it again.

`export.json` names what was exported, by digests: the same command finds its own folder finished, and goes on to push
it. Any other folder or file in that place is refused.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speed_ray.errors import Interrupted, UserError

CONTENTS = "export.json"


def is_finished(to: Path, contents: dict[str, Any]) -> bool:
    """Tell if a folder holds this very export. Raises UserError where it holds anything else."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return False
    with contextlib.suppress(OSError, ValueError):
        if json.loads((to / CONTENTS).read_bytes()) == contents:
            return True
    raise UserError(
        f"--to {to} is there already, and is not this export: another form, other rows, or something else.\n"
        "Name a new folder, or remove that one first."
    )


@contextlib.contextmanager
def new_folder(to: Path, contents: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder to write into, which becomes `to` when all is written, and goes where anything fails."""
    begun = to.parent / f".{to.name}-unfinished"
    try:
        shutil.rmtree(begun, ignore_errors=True)  # of an export that was killed
        begun.mkdir(parents=True)
        try:
            yield begun
            (begun / CONTENTS).write_text(json.dumps(contents, indent=1, sort_keys=True), encoding="utf-8")
            begun.replace(to)
        except BaseException:
            shutil.rmtree(begun, ignore_errors=True)
            raise
    except OSError as error:
        raise Interrupted(
            f"Cannot write --to {to}: {error.strerror or error}.\n"
            "Make room or set permissions, then run the same command again."
        ) from error
