"""The token that guards a Ray cluster: where it lies, that there is one, and that nobody else on the machine reads it.

Whoever holds it runs code on every node. Ray 2.60 asks for it after `ray start` only where a token file happens to
lie, and the file that Ray makes by itself is readable by all.
"""

import os
import secrets
import stat
import tempfile
from pathlib import Path

from speed_ray.errors import UserError

MODE, VALUE, FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"  # the variables that Ray reads


def is_asked_for() -> bool:
    """Whether clusters started here ask for a token: unless the environment says otherwise."""
    return os.environ.get(MODE, "token") == "token"


def path() -> Path:
    """Where Ray reads the token from, when it is not in the environment itself."""
    return Path(os.environ.get(FILE) or Path.home() / ".ray" / "auth_token")


def make() -> None:
    """See that this machine has a token; make one where there is none. Raises UserError."""
    if not os.environ.get(VALUE) and not path().exists():
        _write(path(), secrets.token_hex(32))
    require()


def require() -> None:
    """See that this machine has a token that its owner alone can read. Raises UserError."""
    if os.environ.get(VALUE):
        return
    file = path()
    try:
        if not file.read_text().strip():
            raise UserError(f"{file} is empty. Delete it, and copy the head's there or have one made by `head`.")
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            file.chmod(0o600)
            print(f"{file} could be read by others; now its owner alone can.", flush=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no token at {file}: copy the head's there, or name another file by {FILE}."
        ) from None
    except OSError as error:
        raise UserError(f"the token in {file} cannot be read and guarded: {error.strerror}.") from error


def _write(file: Path, token: str) -> None:
    """Make the file with all that it holds or not at all: another head may be starting beside this one."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent)  # for its owner alone
        with os.fdopen(descriptor, "w") as stream:
            stream.write(token)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return
        finally:
            os.unlink(temporary)
    except OSError as error:
        raise UserError(f"a token cannot be made at {file}: {error.strerror}. Name another file by {FILE}.") from error
