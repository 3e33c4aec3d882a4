import sys
from pathlib import Path

# The examples are no workspace member: they are imported from the root of the checkout, which
# pytest's importlib mode does not put on the path. Last, so that it shadows nothing installed.
sys.path.append(str(Path(__file__).parents[3]))
