#!/bin/sh
# The start weights from nothing: usage start.sh WORKDIR
#
# Records of random imaging domains and of the embedded tasks go to WORKDIR/records, networks to WORKDIR;
# WORKDIR/reptile/model.h5 and the preprocessing.json beside it are what tfmetareg/weights holds.
set -eu
work=$1
python=${PYTHON:-.venv/bin/python}
tasks=${TASKS:-160}
records=$work/records

build() { # source [options]
    source=$1
    shift
    "$python" -m tfrecords_builder build --source "$source" --output "$records" --shards 1 "$@"
}

ls "$records"/synthetic_*.tfrecord-* >/dev/null 2>&1 || build synthetic --tasks "$tasks"
ls "$records"/octa_choroid-*.tfrecord-* >/dev/null 2>&1 || build embedded
"$python" train.py --mode reptile --config start --data.root "$records" --workdir "$work"
