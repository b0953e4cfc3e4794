"""Entry: `python train.py --mode {pretrain,reptile,finetune,evaluate,export,reproduce} ...`."""

import sys

from tfmetareg.cli import main

if __name__ == "__main__":
    sys.exit(main())
