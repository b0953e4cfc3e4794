#!/bin/sh
# From real images to results: usage real.sh DATA WORKDIR
#
# DATA holds any of: Task01_BrainMS and Task03_AbdomenCT (Decathlon folders), octa_6mm/images and oasis2d
# (folders of single images), and octa_scp (pairs.csv, the target). Records go to WORKDIR/records, networks,
# results and the report to WORKDIR, a source task's own results to WORKDIR/tasks/NAME.
set -eu
data=$1
work=$2
python=${PYTHON:-.venv/bin/python}
config=${CONFIG:-configs/reproduce_real.yaml}
size=${SIZE:-"128 128"}
# For the target, whose pairs start far apart; one folder of records has one preprocessing.
align=${ALIGN:-affine}
records=$work/records

build() { # source input role task [options]
    source=$1 input=$2 role=$3 task=$4
    shift 4
    if [ -e "$input" ] && ! ls "$records/$task"-*.tfrecord-* >/dev/null 2>&1; then
        "$python" -m tfrecords_builder build --source "$source" --input "$input" --output "$records" \
            --task "$task" --role "$role" --image-size $size --align "$align" "$@"
    fi
}

for modality in t1w t1gd t2w; do
    build decathlon "$data/Task01_BrainMS" source brain_$modality --modalities $modality
done
build decathlon "$data/Task03_AbdomenCT" source abdomen_ct
build unpaired "$data/octa_6mm/images" source octa_6mm
build unpaired "$data/oasis2d" source oasis_t1w
build pairs "$data/octa_scp" target octa_scp
"$python" -m tfrecords_builder inspect "$records" --figure "$work/contact_sheet.png"

"$python" train.py --mode reproduce --config "$config" --data.root "$records" --workdir "$work"

for task in brain_t1w brain_t1gd brain_t2w abdomen_ct octa_6mm oasis_t1w; do
    ls "$records/$task"-*.tfrecord-* >/dev/null 2>&1 || continue
    split=test # A task of one subject has all its pairs in the training split.
    ls "$records/$task"-test.tfrecord-* >/dev/null 2>&1 || split=train
    "$python" train.py --mode evaluate --config "$config" --data.root "$records" --workdir "$work/tasks/$task" \
        --evaluate.weights "$work/reptile/model.h5" --evaluate.method reptile \
        --evaluate.task "$task" --evaluate.split "$split"
done
