"""A trained model put to work on patches, images and whole slides."""
