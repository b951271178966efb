"""What pytest does not import here: the disk in user space needs FUSE and `mfusepy`."""

collect_ignore = ["disk.py"]
