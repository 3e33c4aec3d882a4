"""`python -m penstock_inference`."""

import sys

from penstock.settings import SettingsError
from penstock_inference.app import run
from penstock_inference.settings import InferenceSettings

if __name__ == "__main__":
    try:
        run(InferenceSettings.load())
    except SettingsError as error:
        sys.exit(str(error))
