"""`python -m penstock_cost`."""

import sys

from penstock.settings import SettingsError
from penstock.streams import main
from penstock_cost.app import serve
from penstock_cost.settings import CostSettings

if __name__ == "__main__":
    try:
        settings = CostSettings.load()
    except SettingsError as error:
        sys.exit(str(error))
    main(serve(settings))
