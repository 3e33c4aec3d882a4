"""`python -m penstock_inference`, or with `--check` only to look at settings and models."""

import sys

from penstock.settings import SettingsError
from penstock_inference.settings import InferenceSettings
from penstock_inference.supervision import DeployError

if __name__ == "__main__":
    try:
        settings = InferenceSettings.load()
        if sys.argv[1:] == ["--check"]:
            sys.stdout.write("\n".join([*settings.describe_models(), ""]))
            sys.exit()
        from penstock_inference.app import run  # Ray takes seconds to import

        run(settings)
    except (SettingsError, DeployError) as error:
        sys.exit(str(error))
