"""What is kept, where and in which shape: zarr datasets and the readers of other formats."""
