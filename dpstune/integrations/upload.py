"""A finished run's model, with its card, on the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path

from dpstune.common.hub import first_line, uploading_to_the_hub
from dpstune.errors import RequestError, RunError


def refuse_what_cannot_be_uploaded(repository: str) -> None:
    """Refuse, before anything is trained, what could not be uploaded after it.

    Args:
        repository: ``NAME`` or ``OWNER/NAME``.

    Raises:
        RequestError: It is no repository's id, or nobody is logged in, or with a token that may not write.
    """
    from huggingface_hub import HfApi, constants, errors, get_token
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    flag = f"--push-to-hub {repository}"
    try:
        validate_repo_id(repository)
    except errors.HFValidationError as error:
        raise RequestError(f"{flag}: {first_line(error).partition('. Use')[0]}") from None
    if constants.HF_HUB_OFFLINE:
        raise RequestError(f"{flag}: HF_HUB_OFFLINE is set, and the hub will not be asked; unset it")
    if get_token() is None:
        raise RequestError(f"{flag}: the hub has to know who you are: log in with `hf auth login`, or set HF_TOKEN")
    try:
        token = HfApi().whoami().get("auth", {}).get("accessToken", {})
    except errors.HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise RequestError(f"{flag}: the hub does not know your token; log in with `hf auth login`") from None
        return
    except Exception:  # out of reach now: training may go on, and the same command uploads later
        return
    if token.get("role") == "read":
        raise RequestError(f"{flag}: your token may only read; log in with one that may write: `hf auth login`")


def upload_model(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a model folder, in one commit, and return its address.

    Args:
        folder: The run's ``model/``.
        repository: ``NAME`` or ``OWNER/NAME``; made where there is none.
        private: Whether only its owner may see it.

    Raises:
        RunError: The hub could not be reached or refuses; or what should be private is public there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    kept = f"the model is kept as {folder}, and the same command uploads it"
    with uploading_to_the_hub(repository, kept):
        api = HfApi()
        repository = api.create_repo(repository, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repository).private:
            raise RunError(f"{repository} is there already, and public; --private makes no public one private: {kept}")
        message = f"Fine-tuned with dpstune ({folder.parent.name})"
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        return f"{api.endpoint}/{repository}"
