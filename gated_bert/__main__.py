"""`python -m gated_bert` is `gated-bert`."""

import sys

from gated_bert.start import in_utf8, leave_working_folder, open_streams


def main() -> int:
    """The command `gated-bert`."""
    leave_working_folder()
    in_utf8()
    open_streams()
    from gated_bert.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
