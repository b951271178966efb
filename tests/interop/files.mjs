// The files of a run, opened without following a link, leaving the directory or waiting on a FIFO.

import fs from 'node:fs';

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const MAX_FILES = 1_000_000;

export class Refused extends Error {}

export class RunDirectory {
  constructor(path) {
    this.path = path;
    this.fd = fs.openSync(path, O_RDONLY | O_DIRECTORY);
  }

  close() {
    fs.closeSync(this.fd);
  }

  /** Names of the entries of the directory itself, as many as the limit allows, and whether there are more. */
  names() {
    const names = [];
    const directory = fs.opendirSync(within(this.fd, '.', this.path));
    let entry;
    while ((entry = directory.readSync()) && names.length < MAX_FILES) names.push(entry.name);
    directory.closeSync();
    return { names, more: entry !== null };
  }

  /** Open a regular file of the run, one segment of its path after another; null if there is none. */
  open(path) {
    const segments = path.split('/');
    if (!segments.every((segment) => SEGMENT.test(segment))) throw new Refused('path leaves the grammar');
    let [fd, place] = [this.fd, this.path];
    try {
      for (const [index, segment] of segments.entries()) {
        const kind = index < segments.length - 1 ? O_DIRECTORY : O_NONBLOCK;
        const next = fs.openSync(within(fd, segment, place), O_RDONLY | O_NOFOLLOW | kind);
        if (fd !== this.fd) fs.closeSync(fd);
        [fd, place] = [next, `${place}/${segment}`];
      }
    } catch (error) {
      if (fd !== this.fd) fs.closeSync(fd);
      if (error.code === 'ENOENT') return null;
      throw new Refused(`cannot be opened: ${error.code}`);
    }
    const status = fs.fstatSync(fd);
    if (status.isFile()) return new RunFile(fd, status.size);
    fs.closeSync(fd);
    throw new Refused('not a regular file');
  }
}

// Node has no openat(2). On Linux /proc gives the same: a name looked up in a directory that is held open.
function within(fd, name, path) {
  return process.platform === 'linux' ? `/proc/self/fd/${fd}/${name}` : `${path}/${name}`;
}

export class RunFile {
  constructor(fd, size) {
    Object.assign(this, { fd, size });
  }

  close() {
    fs.closeSync(this.fd);
  }

  /** The bytes from `offset`, at most `length` and never more than the file had when it was opened. */
  read(offset, length) {
    const wanted = Math.max(0, Math.min(length, this.size - offset));
    const bytes = Buffer.alloc(wanted);
    let filled = 0;
    while (filled < wanted) {
      const count = fs.readSync(this.fd, bytes, filled, wanted - filled, offset + filled);
      if (count === 0) break;
      filled += count;
    }
    return bytes.subarray(0, filled);
  }
}
