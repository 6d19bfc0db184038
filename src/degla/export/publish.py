"""A model to the Hugging Face hub: exported, with its card, and uploaded in one go."""

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
from degla.model.runs import CARD_NAME
from degla.parse import in_one_line

_LOGIN = "Log in: hf auth login; or set HF_TOKEN to a token that may write."


@dataclass(frozen=True)
class Upload:
    """What is uploaded.

    Attributes:
        files: path in the repository and size in bytes, in order.
        card: the text of README.md.
        address: of the model's page; "" where nothing was uploaded.
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
    """Export a model, or take an exported folder as it is, and upload it.

    Args:
        name: any form of `degla.model.load.FORMS`, or a folder of `degla export`.
        to: OWNER/NAME on the hub; made where it is not there.
        form: of the export; None: open_clip's, or that of the exported folder.
        what: weights of a run, see `export`.
        results: for the card, see `export`.
        licence: for the card and the hub.
        private: make a new model visible to its owners alone.
        dry_run: upload nothing.

    Raises:
        InputError: a wrong name, no token, no right to write, or no network; see `export` too.
        DeglaError: the upload failed; see `export` too.
    """
    _check_name(to)
    token = None if dry_run else _token()
    with _folder(name, to, form=form, what=what, results=results, licence=licence) as folder:
        files = tuple(
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        )
        card = (folder / CARD_NAME).read_text(encoding="utf-8")
        return Upload(files, card, "" if dry_run else _send(folder, to, token=token, private=private))


@contextmanager
def _folder(
    name: str, to: str, *, form: To | None, what: What | None, results: Sequence[Path], licence: str | None
) -> Iterator[Path]:
    folder = Path(name)
    if (folder / CARD_NAME).is_file() and not (folder / STATE_NAME).is_file():
        if what or results or licence or form:
            raise InputError(
                f"{folder}: is exported in its form and has its card; give --form, --what, --results and "
                "--license to degla export."
            )
        strange = [path for path in folder.rglob("*") if path.name.startswith(".") or path.is_symlink()]
        if strange:
            raise InputError(
                f"{strange[0]}: a hidden file or a link, which is not uploaded. Take it out of the folder."
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
        raise InputError(f"--to {to!r}: no name of the hub: {in_one_line(error)}") from None
    if to.count("/") != 1:
        raise InputError(f"--to {to!r}: name the owner too: OWNER/NAME.")


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError(f"nobody is logged in at the Hugging Face hub. {_LOGIN}")
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
        api.upload_folder(repo_id=to, folder_path=folder, commit_message=f"{to.partition('/')[2]} by degla")
    except Exception as error:  # the hub's HTTP client and its transfer library raise kinds of their own
        status = getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403):
            raise InputError(f"{to}: the hub refuses ({status}): the token may not write there. {_LOGIN}") from None
        raise DeglaError(
            f"{to}: the upload failed: {in_one_line(error) or type(error).__name__}. Run the same command again to "
            "resume."
        ) from None
    return str(address)
