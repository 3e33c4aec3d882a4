"""`python -m penstock_retrain`."""

import asyncio
import sys

from penstock.settings import SettingsError
from penstock_retrain.app import serve
from penstock_retrain.settings import RetrainSettings

if __name__ == "__main__":
    try:
        asyncio.run(serve(RetrainSettings.load()))
    except SettingsError as error:
        sys.exit(str(error))
