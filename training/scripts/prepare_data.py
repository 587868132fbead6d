"""Runs the command of `training.cli.prepare_data`."""

from training.base.errors import exit_on_user_error
from training.cli.prepare_data import main

if __name__ == "__main__":
    exit_on_user_error(main)
