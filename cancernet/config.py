"""Every path, ratio and hyper-parameter of the pipeline: editing this file changes what it does.

The scripts alone read it and hand the values on as arguments. Paths are relative to the directory
that the scripts are started in.
"""

# --- Paths ---------------------------------------------------------------------------------------

# The images as downloaded: <patient>/<class>/<file>, class 0 benign, class 1 malignant.
ORIG_INPUT_DATASET = "datasets/original"

# The data set that build_dataset.py makes, and the folders of its three splits.
BASE_PATH = "datasets/idc"
TRAIN_PATH = f"{BASE_PATH}/training"
VAL_PATH = f"{BASE_PATH}/validation"
TEST_PATH = f"{BASE_PATH}/testing"

# Where `build_dataset.py --sample` draws the synthetic sample.
SAMPLE_PATH = "datasets/sample"

# Where train_model.py leaves the model, its report and its plot.
OUTPUT_PATH = "output"

# --- Building the data set -----------------------------------------------------------------------

# What the last folders of an image's path and its name are. For several slides of a patient
# "patient/slide/class/file"; for names such as anna_17.png in two folders "class/patient_file".
# IDC names (8863_idx5_x1001_y51_class1.png) tell the patient by themselves.
LAYOUT = "patient/class/file"

# "patient": no patient in two splits. "image": the published shuffle of patches, which shares
# patients between the splits. "published": the patient lists of Cruz-Roa et al. (2014).
SPLIT_BY = "patient"

# Share of the whole that is for training and validation; the rest is for testing.
TRAIN_SPLIT = 0.8

# Share of that part which is for validation.
VAL_SPLIT = 0.1

# One seed for the split, the order of the patches, the augmentation and the first weights.
SEED = 42

# Patches with a side shorter than this are left out: slivers from a slide's edge, in pixels.
MIN_SIDE = 25

# Images with more pixels than this are refused by their header, before they are decoded.
MAX_PIXELS = 100_000_000

# --- Network -------------------------------------------------------------------------------------

# What every patch is resized to, in pixels, and its colour channels: red, green, blue.
IMAGE_WIDTH = 48
IMAGE_HEIGHT = 48
IMAGE_DEPTH = 3

# Benign and malignant.
CLASSES = 2

# --- Training ------------------------------------------------------------------------------------

# How the network is trained: "published", which the constants of the two sections below make up, or
# "tuned", which has values of its own, in cancernet/recipe.py.
RECIPE = "published"

# --- The published recipe ------------------------------------------------------------------------

# Passes over the training split. It is part of the learning rate's decay, too.
EPOCHS = 40

# Adagrad's first learning rate; at step t it is LEARNING_RATE / (1 + t * LEARNING_RATE / EPOCHS).
LEARNING_RATE = 1e-2

# Patches per step.
BATCH_SIZE = 32

# --- What it runs on -----------------------------------------------------------------------------

# "auto": float16 and float32 mixed where every GPU has the units for it, float32 elsewhere and on
# the CPU. "float32" or "mixed": that, whatever there is. The saved network is float32 always.
PRECISION = "auto"

# Two runs of the same seed and data on one machine give the same weights to the bit. False lets
# TensorFlow take kernels that may round otherwise from run to run.
DETERMINISTIC = True

# --- Augmentation of the training patches, as published ------------------------------------------

# Rotation by up to this angle either way, in degrees.
ROTATION_RANGE = 20.0

# Zoom of each axis by a factor from 1 - range to 1 + range.
ZOOM_RANGE = 0.05

# Shifts by up to this share of the width and of the height.
WIDTH_SHIFT_RANGE = 0.1
HEIGHT_SHIFT_RANGE = 0.1

# Shear by up to this angle, in degrees (the published 0.05 is an angle: next to nothing).
SHEAR_RANGE = 0.05

# Mirror every second patch, left to right and top to bottom.
HORIZONTAL_FLIP = True
VERTICAL_FLIP = True

# --- Figures -------------------------------------------------------------------------------------

# What the second threshold, beside 0.5, maximises on validation: "balanced_accuracy", "accuracy",
# "f1" or "mcc".
THRESHOLD_MEASURE = "balanced_accuracy"

# Resamples of the patients that the 95 % intervals are made of.
RESAMPLES = 2_000
