"""A finished run's model in a folder of its own, for use elsewhere: no checkpoints, no logs, and how to use it."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from training.base.errors import exit_on_user_error
from training.base.system_files import listed

README = "README.txt"
USE = """{name}: a VoxLM, trained with Polyvox. The folder is all that is needed.

Text and word times of a recording, as JSON:
  python training/scripts/inference.py --checkpoint FOLDER --audio RECORDING
Subtitles, other formats, long recordings:
  polyvox transcribe RECORDING --model FOLDER
Scores on utterances with transcripts:
  polyvox evaluate --model_dir FOLDER --test_csv MANIFEST

config.yaml says how it was trained. {confidence}
"""
HONEST = "calibration.json makes the confidence of its words honest; keep it beside the weights."
RAW = "The confidence of its words is not calibrated (polyvox calibrate --model_dir FOLDER)."


def main(argv: Sequence[str] | None = None) -> int:
    """Copy what makes the model, write the note."""
    result = argparse.ArgumentParser(prog="training.recipes.export", description=__doc__, allow_abbrev=False)
    result.add_argument("--model_dir", type=Path, required=True, help="a finished run's folder")
    result.add_argument("--output", type=Path, required=True, help="folder of the copy")
    result.add_argument("--force", action="store_true", help="replace the files of an earlier copy")
    args = result.parse_args(argv)
    files = export(args.model_dir, args.output, force=args.force)
    print(f"{args.output}: {', '.join(path.name for path in files)}")
    return 0


def export(folder: Path, output: Path, *, force: bool = False) -> list[Path]:
    """Copy model, processor, configuration and calibration of a finished run to ``output``; the files written.

    Raises `UserError` where the run is not finished, or ``output`` holds something and ``force`` is not set.
    """
    from training.config.load import RESOLVED_NAME
    from training.decoding.calibrated import NAME as CALIBRATION
    from training.export.folder import new_folder
    from training.publishing.contents import check_finished, why_not

    check_finished(folder)
    chosen = [path.name for path in sorted(listed(folder)) if why_not(path) is None]
    with new_folder(output, "--export", force=force, ours=lambda place: (place / README).is_file()) as part:
        for name in (*chosen, RESOLVED_NAME):
            shutil.copyfile(folder / name, part / name)
        confidence = HONEST if (folder / CALIBRATION).is_file() else RAW
        note = USE.format(name=folder.resolve().name, confidence=confidence)
        (part / README).write_text(note, encoding="utf8")
    return [output / name for name in (*chosen, RESOLVED_NAME, README)]


if __name__ == "__main__":
    exit_on_user_error(main)
