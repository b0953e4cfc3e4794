"""Entry: `python train.py --mode MODE ...`; `--help` lists the modes and the most used options."""

import sys

from tfmetareg.cli import main

if __name__ == "__main__":
    sys.exit(main())
