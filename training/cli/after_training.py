"""What ``polyvox train --login_hf`` does when the run is finished: the final scores, then the upload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.base.errors import UserError

if TYPE_CHECKING:
    from training.config.schema import Config


def evaluate_and_publish(config: Config, folder: Path, owner: str) -> int:
    """Score the run on its test split, and publish it privately as ``owner/NAME`` with these scores on its card.

    Args:
        config: of the run. Without test rows the card has no scores, and a line says so.
        folder: the finished run.
        owner: a name on the Hub.

    Returns:
        0, or the status of an evaluation that had to leave out too much; nothing is published then.
    """
    from training.cli import evaluate, publish
    from training.publishing.evidence import results_folder

    name = f"{owner}/{folder.resolve().name}"
    upload = ["--model", str(folder), "--repo_id", name]
    if (missing := config.data.source.missing("test")) is not None:
        print(
            f"--login_hf: no test split ({missing.path or 'the configuration names none'}), so the card has no scores"
        )
    elif status := evaluate.main(["--model", str(folder), "--output", str(results_folder(None, folder))]):
        print(f"--login_hf: not published; look at the evaluation, then: polyvox publish {' '.join(upload)}")
        return status
    return publish.main(upload)


def owner_on_the_hub() -> str:
    """Whose token this is, asked before anything is trained. Raises `UserError` that names the option."""
    from training.publishing.upload import account

    try:
        return account()
    except UserError as error:
        raise UserError(f"--login_hf: {error}") from error
