"""CoreDNS, where it is at hand: it is not a part of what this project installs."""

import os
import shutil

COREDNS = os.environ.get("COREDNS") or shutil.which("coredns")
