"""Runs the command of `training.cli.charts`."""

from training.base.errors import exit_on_user_error
from training.cli.charts import main

if __name__ == "__main__":
    exit_on_user_error(main)
