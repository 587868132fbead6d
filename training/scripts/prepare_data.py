"""A door into `training.cli.prepare_data`."""

from training.cli.prepare_data import main
from training.errors import exit_on_user_error

if __name__ == "__main__":
    exit_on_user_error(main)
