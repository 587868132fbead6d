"""A door into `training.cli.charts`."""

from training.cli.charts import main
from training.errors import exit_on_user_error

if __name__ == "__main__":
    exit_on_user_error(main)
