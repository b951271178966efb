"""What pytest does not import here: a disk and a client in user space need FUSE and `mfusepy`."""

collect_ignore = ["client.py", "disk.py"]
