"""`python -m penstock_inference [--check]`."""

import sys

from penstock.settings import SettingsError
from penstock_inference.app import check, run
from penstock_inference.settings import InferenceSettings
from penstock_inference.supervision import DeployError

if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["--check"]:
            sys.stdout.write("\n".join(check(InferenceSettings.load())) + "\n")
        else:
            run(InferenceSettings.load())
    except (SettingsError, DeployError) as error:
        sys.exit(str(error))
