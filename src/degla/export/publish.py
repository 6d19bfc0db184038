"""Publish a model on the Hugging Face hub: export it with its card and upload it in one step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from degla.errors import DeglaError, InputError
from degla.export.run import To, What, export
from degla.model.hub import why_unreachable
from degla.model.integrity import STATE_NAME
from degla.model.load import holds_model
from degla.model.runs import CARD_NAME, TRAINING_NAME
from degla.parse import in_one_line

_LOGIN = "Log in: hf auth login; or set HF_TOKEN to a token with write access."


@dataclass(frozen=True)
class Upload:
    """The uploaded files.

    Attributes:
        files: path in the repository and size in bytes, in order.
        card: the text of README.md.
        address: URL of the model's page; "" if nothing was uploaded.
    """

    files: tuple[tuple[str, int], ...]
    card: str
    address: str = ""


def publish(
    name: str,
    *,
    to: str,
    form: To | None = None,
    what: What | None = None,
    results: Sequence[Path] = (),
    licence: str | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> Upload:
    """Export a model and upload it; an exported folder is uploaded unchanged.

    Args:
        name: any form of `degla.model.load.FORMS`, or a folder from `degla export`.
        to: OWNER/NAME on the hub; created if it does not exist.
        form: format of the export; None for open_clip's, or that of the exported folder.
        what: weights of a run, see `export`.
        results: for the card, see `export`.
        licence: for the card and the hub.
        private: make a new model visible only to its owners.
        dry_run: upload nothing.

    Raises:
        InputError: the name is invalid, there is no token, no write access or no network; see also `export`.
        DeglaError: the upload failed; see also `export`.
    """
    _check_name(to)
    token = None if dry_run else _token()
    with _folder(name, to, form=form, what=what, results=results, licence=licence) as folder:
        files = tuple(
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != TRAINING_NAME
        )
        card = (folder / CARD_NAME).read_text(encoding="utf-8")
        return Upload(files, card, "" if dry_run else _send(folder, to, token=token, private=private))


@contextmanager
def _folder(
    name: str, to: str, *, form: To | None, what: What | None, results: Sequence[Path], licence: str | None
) -> Iterator[Path]:
    folder = Path(name)
    if holds_model(folder) and (folder / CARD_NAME).is_file() and not (folder / STATE_NAME).is_file():
        if what or results or licence or form:
            raise InputError(
                f"{folder}: is already exported and has its card. Give --form, --what, --results and --license to "
                "degla export instead."
            )
        strange = [path for path in folder.rglob("*") if path.name.startswith(".") or path.is_symlink()]
        if strange:
            raise InputError(
                f"{strange[0]}: is a hidden file or a link, which cannot be uploaded. Remove it from the folder."
            )
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="degla-publish-") as temporary:
        out = Path(temporary) / to.partition("/")[2]
        export(name, to=form or "open_clip", out=out, what=what, results=results, licence=licence)
        yield out


def _check_name(to: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(to)
    except HFValidationError as error:
        raise InputError(f"--to {to!r}: not a valid hub name: {in_one_line(error)}") from None
    if to.count("/") != 1:
        raise InputError(f"--to {to!r}: the owner is missing. Give OWNER/NAME.")


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError(f"you are not logged in to the Hugging Face hub. {_LOGIN}")
    why = why_unreachable()
    if why is not None:
        raise InputError(f"the Hugging Face hub cannot be reached: {why}. --dry-run shows what would be uploaded.")
    return str(token)


def _send(folder: Path, to: str, *, token: str | None, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        address = api.create_repo(to, private=private or None, exist_ok=True)
        message = f"{to.partition('/')[2]} by degla"
        # Its paths are those of this machine.
        api.upload_folder(repo_id=to, folder_path=folder, commit_message=message, ignore_patterns=[TRAINING_NAME])
    except Exception as error:  # the hub's HTTP client and its transfer library raise their own exception types
        status = getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403):
            raise InputError(f"{to}: the hub refused ({status}): the token has no write access. {_LOGIN}") from None
        raise DeglaError(
            f"{to}: the upload failed: {in_one_line(error) or type(error).__name__}. Run the same command again to "
            "resume."
        ) from None
    return str(address)
