"""`python -m gated_bert` is `gated-bert`."""

import sys

from gated_bert.start import main

sys.exit(main())
