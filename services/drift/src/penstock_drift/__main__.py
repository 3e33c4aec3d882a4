"""`python -m penstock_drift`."""

import sys

from penstock.settings import SettingsError
from penstock.streams import main
from penstock_drift.app import serve
from penstock_drift.settings import DriftSettings

if __name__ == "__main__":
    try:
        settings = DriftSettings.load()
    except SettingsError as error:
        sys.exit(str(error))
    main(serve(settings))
