"""`python -m penstock_ingest`."""

import sys

from penstock.settings import SettingsError
from penstock_ingest.app import run
from penstock_ingest.settings import IngestSettings

if __name__ == "__main__":
    try:
        run(IngestSettings.load())
    except (SettingsError, OSError) as error:
        sys.exit(str(error))
