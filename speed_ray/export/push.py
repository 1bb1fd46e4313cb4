"""Push an exported folder to the Hugging Face hub: private unless asked otherwise, and on from where it stopped."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from speed_ray.errors import Interrupted, UserError

NAME = re.compile(r"[\w.-]+/[\w.-]+")
NOT_OURS = {".gitattributes"}  # the hub writes it


def check_push(name: str) -> None:
    """Raise UserError where nothing could be pushed: a name that is none, no huggingface_hub, no token."""
    if not NAME.fullmatch(name):
        raise UserError(f"--push {name}: write it as owner/name, as the hub calls a repository.")
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("--push needs the package huggingface_hub: pip install 'speed_ray[train]'") from None
    if huggingface_hub.get_token() is None:
        raise UserError(
            f"--push {name}: there is no token of the hub on this machine.\n"
            "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
        )


def push_folder(folder: Path, name: str, kind: Literal["dataset", "model"], public: bool) -> str:
    """Upload a folder into a repository, which is made where it is missing; return its address.

    Raises UserError where the repository is public and that was not asked for, or holds files that the folder has
    not; Interrupted where the hub does not answer: what is uploaded by then need not be again.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(library_name="speed_ray")
    try:
        with _explained(folder, name):
            made = api.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
            if not public and not api.repo_info(name, repo_type=kind).private:
                raise UserError(f"--push {name}: that repository is public. Add --public if the rows may be so too.")
            there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            if others := sorted(set(api.list_repo_files(name, repo_type=kind)) - there - NOT_OURS):
                raise UserError(
                    f"--push {name}: that repository holds {others[0]} and {len(others) - 1} files more that this "
                    "export has not; whoever loads it would get both.\nDelete them there, or push under another name."
                )
            api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, commit_message="Export of speed_ray")
    except HFValidationError as error:
        raise UserError(f"--push {name}: {error}") from None
    return str(made)


@contextmanager
def _explained(folder: Path, name: str) -> Iterator[None]:
    """Turn errors of the hub and of the network into messages."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise UserError(
                f"--push {name}: the hub refused the token ({error.server_message or error}).\n"
                f"Use one that may write there. The export in {folder} is whole and stays."
            ) from None
        raise _unreached(folder, name, error) from error
    except (HTTPError, OSError) as error:  # no network
        raise _unreached(folder, name, error) from error


def _unreached(folder: Path, name: str, error: Exception) -> Interrupted:
    return Interrupted(
        f"--push {name}: the hub did not take it all ({error}).\n"
        f"The export in {folder} is whole. Run the same command again: it goes on with what is missing."
    )
