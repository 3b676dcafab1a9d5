"""One file a source format; each turns files into blocks of images, labels and ids."""
