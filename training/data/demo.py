"""A door into `training.cli.demo_data`."""

from training.base.errors import exit_on_user_error
from training.cli.demo_data import main

if __name__ == "__main__":
    exit_on_user_error(main)
