"""Run jobs on Ray. Beside `serving`, no other package imports it."""

import os

# A job that is stopped shuts Ray down while Ray Data's threads still work: the next call of theirs must fail, and not
# start or join another Ray. Ray reads this once, when it is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
