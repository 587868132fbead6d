"""Runs the command of `training.cli.train`."""

from training.base.errors import exit_on_user_error
from training.cli.train import main

if __name__ == "__main__":
    exit_on_user_error(main)
