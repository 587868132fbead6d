"""A door into `training.cli.calibrate`."""

from training.cli.calibrate import main
from training.errors import exit_on_user_error

if __name__ == "__main__":
    exit_on_user_error(main)
