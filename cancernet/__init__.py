"""CancerNet: a small Keras network for IDC breast histology patches, and the pipeline around it."""
