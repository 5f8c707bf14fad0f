"""Every method side by side: the comparisons as one grid of jobs that is carried on where it stopped.

    small_suite        ResNet-20 at 32 pixels, six tasks, every method, two chips
    large_suite        MobileNetV2 and ResNet-50 at 112 pixels, five tasks
    bits_front         accuracy against mask bits: XBM at 16 to 512 rows, XMA at 2 to 5 bits, KSM, filters, Piggyback
    chip_in_the_loop   masks learned through a bad chip, against masks that were moved to it and the usual remedies
    forgetting         tasks learned one after another on one network

Command:   python -m experiments.suite --data FOLDER --only small_suite
           FOLDER holds the tasks as .npz files, and cifar10.npz for what touches the source task. --tasks, --methods,
           --chips, --backbones, --seeds choose a part of a grid; --images and --epochs are the same for every method.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      one to two minutes a job on one core (2,500 images, 8 epochs, ResNet-20).
Writes:    <out>/<comparison>.json after every job, then its table and figure. Run again it carries on from the jobs
           that are there; with more --tasks, --methods, --chips or --seeds it adds theirs. Other settings need another
           --out.

The rules, for every method: the same images, epochs, batches and norm policy; the epoch is chosen on 15 % of the
training images; test labels are read once, after that choice. Learning rates are the defaults of `xbm.methods`, in the
large suite lower ones for all methods (`experiments/suite/jobs.py`); both were chosen on validation images
(`experiments/estimators.py`).
"""
