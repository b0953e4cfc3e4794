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
size=${SIZE:-"160 160"}
# For the target, whose pairs start far apart; one folder of records has one preprocessing.
align=${ALIGN:-affine}
records=$work/records

# Tasks that are there stay as they are; they must have been built alike.
if [ -e "$records/manifest.json" ]; then
    built=$("$python" -c 'import json, sys; manifest = json.load(open(sys.argv[1]))
print(*manifest["image_shape"], manifest["preprocessing"].get("align", "none"))' "$records/manifest.json")
    if [ "$built" != "$size $align" ]; then
        echo "error: $records: built with SIZE and ALIGN \`$built\`, not \`$size $align\`; remove it or name another WORKDIR." >&2
        exit 2
    fi
fi

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
# Known warps of 4 pixels on average, whatever the size: what lies farther apart is out of the loss's sight.
displacement=$("$python" -c 'import sys; print(4 / int(sys.argv[1]))' "${size#* }")
build unpaired "$data/octa_6mm/images" source octa_6mm --displacement "$displacement"
build unpaired "$data/oasis2d" source oasis_t1w --displacement "$displacement"
build pairs "$data/octa_scp" target octa_scp
"$python" -m tfrecords_builder inspect "$records" --figure "$work/contact_sheet.png"

"$python" train.py --mode reproduce --config "$config" --data.root "$records" --workdir "$work"

# What the meta-trained weights do on the source tasks: one process for all tasks with a test split, and one for those of
# one subject, whose pairs are all in the training split.
weights=
for file in "$work/reptile/model.h5" "$work"/seed-*/reptile/model.h5; do # Several seeds have a folder each.
    [ -e "$file" ] && weights="$weights\"$file\","
done
test= train=
for task in brain_t1w brain_t1gd brain_t2w abdomen_ct octa_6mm oasis_t1w; do
    if ls "$records/$task"-test.tfrecord-* >/dev/null 2>&1; then
        test="$test$task,"
    elif ls "$records/$task"-train.tfrecord-* >/dev/null 2>&1; then
        train="$train$task,"
    fi
done
for split in test train; do
    eval "tasks=\$$split"
    [ -n "$tasks" ] && [ -n "$weights" ] || continue
    "$python" train.py --mode evaluate --config "$config" --data.root "$records" --workdir "$work" \
        --evaluate.weights "[$weights]" --evaluate.task "[$tasks]" --evaluate.split "$split"
done
