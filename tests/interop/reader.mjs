// A reader of the Blackbox run format, written from spec/1.0 alone. Start here: `readRun(path)`.

import { decodeConfig } from './config.mjs';
import { Refused, RunDirectory } from './files.mjs';
import { toGroups } from './groups.mjs';
import { journalName, readJournal } from './journal.mjs';
import { parseJson } from './json.mjs';
import { decideId, isForeign, markEffective, merge, place } from './merge.mjs';
import { valid } from './schema.mjs';
import { sealedJournals, sealedRecords } from './sealed.mjs';
import { formatNamed, refusal } from './versions.mjs';

export { Refused } from './files.mjs';

const MAX_DOCUMENT = 16 * 2 ** 20;
const SEALED = ['sealed', 'groups', 'journals', 'files'];

/** All that a run holds. Throws `Refused` if the directory is no run, or one of a version this reader does not know. */
export function readRun(path) {
  const directory = new RunDirectory(path);
  try {
    return new Reader(directory).read();
  } finally {
    directory.close();
  }
}

class Reader {
  constructor(directory) {
    this.directory = directory;
    this.problems = [];
    this.leftOut = [];
    this.unreadable = new Map(); // group -> why its table cannot be read
  }

  read() {
    let manifest = this.readManifest();
    let read = this.readJournals(manifest);
    const packed = manifest?.get('sealed')?.get('packed') === true;
    const manifestId = manifest?.get('id');
    const id = packed ? manifestId : decideId(read, manifestId);
    if (id === undefined && manifest === null) throw new Refused('no run');
    if (manifestId !== undefined && manifestId !== id) {
      this.problems.push({ file: 'run.json', why: 'of another run' });
      manifest = null;
    }
    for (const journal of read.filter((own) => isForeign(own, id))) this.leave(journal, 'of another run');
    read = read.filter((journal) => !isForeign(journal, id));
    const fallback = packed ? this.unpack(manifest) : [];
    const journals = place([...read, ...fallback].sort(byRankAndOrdinal));
    const { records, lost, conflicts } = merge(journals);
    for (const conflict of conflicts) this.problems.push({ ...conflict, why: 'copies differ' });
    if (manifest?.has('sealed') && !packed) this.heal(records, lost, manifest);
    markEffective(records);
    const { groups, dropped } = toGroups(records, manifest?.get('groups'), packed);
    if (dropped) this.problems.push({ why: `limit of metric names: ${dropped} left out` });
    const first = read.find((journal) => journal.header)?.header.get('run');
    return {
      id,
      name: manifest?.get('name') ?? first?.get('name') ?? null,
      tags: manifest?.get('tags') ?? first?.get('tags') ?? [],
      environment: manifest?.get('environment') ?? new Map(),
      ...history(journals, records, manifest),
      config: this.readConfig(),
      groups,
      records,
      lost,
      damaged: read.flatMap((journal) => journal.damaged),
      leftOut: this.leftOut,
      unreadable: this.unreadable,
      problems: this.problems,
    };
  }

  leave(journal, why) {
    this.leftOut.push(journal.name);
    this.problems.push({ file: journal.name, why });
  }

  /** A whole small document, or null if it is absent or beyond the limit. */
  readDocument(name) {
    const file = this.directory.open(name);
    if (file === null) return null;
    try {
      if (file.size > MAX_DOCUMENT) throw new Error(`${file.size} bytes, beyond the limit of 16 MiB`);
      return file.read(0, file.size);
    } finally {
      file.close();
    }
  }

  /** The members of `run.json` that are valid, or null if it is absent, damaged or of something else. */
  readManifest() {
    let document;
    try {
      const bytes = this.readDocument('run.json');
      if (bytes === null) throw new Error('absent');
      document = parseJson(bytes);
    } catch (error) {
      this.problems.push({ file: 'run.json', why: error.message });
      return null;
    }
    const format = formatNamed(document, 'blackbox-run');
    const reason = format && refusal(format);
    if (reason) throw new Refused(reason);
    if (!format || !document.has('id')) {
      this.problems.push({ file: 'run.json', why: 'no manifest of a run' });
      return null;
    }
    return this.usableMembers(document);
  }

  usableMembers(document) {
    const usable = new Map();
    for (const [name, value] of document) {
      if (!known(name) || valid(value, `manifest.schema.json#/properties/${name}`)) usable.set(name, value);
      else this.problems.push({ file: 'run.json', why: `${name} is not valid` });
    }
    if (!SEALED.every((name) => usable.has(name))) for (const name of SEALED) usable.delete(name);
    return usable;
  }

  readConfig() {
    try {
      const bytes = this.readDocument('config.json');
      return bytes === null ? new Map() : decodeConfig(bytes);
    } catch (error) {
      this.problems.push({ file: 'config.json', why: error.message });
      return null;
    }
  }

  /** The journals that can be read, by rank and ordinal; of a packed run those its manifest does not list. */
  readJournals(manifest) {
    const packed = manifest?.get('sealed')?.get('packed') === true;
    const listed = new Set(packed ? manifest.get('journals').map((entry) => entry.get('file')) : []);
    const named = this.directory.names().map(journalName)
      .filter((found) => found !== null && !listed.has(found.name));
    const journals = [];
    for (const name of named.sort(byRankAndOrdinal)) {
      const journal = this.readJournal(name);
      if (journal?.refused) this.leave(journal, journal.refused);
      else if (journal) journals.push(journal);
    }
    return journals;
  }

  readJournal(named) {
    let file;
    try {
      file = this.directory.open(named.name);
      return file && readJournal(file, named);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.problems.push({ file: named.name, why: error.message });
      return null;
    } finally {
      file?.close();
    }
  }

  sealed(manifest) {
    const { records, unreadable } = sealedRecords(this.directory, manifest);
    for (const [group, why] of unreadable) this.problems.push({ file: manifest.get('groups').get(group).get('table'), why });
    this.unreadable = unreadable;
    return sealedJournals(manifest, records);
  }

  /** The journals of a packed run, made of its tables and events. */
  unpack(manifest) {
    return this.sealed(manifest).map((journal) => ({ ...journalName(journal.name), ...journal, header: null, lines: 1 }));
  }

  /** Put in what a listed journal has lost and the tables and events still hold. */
  heal(records, lost, manifest) {
    const held = (entry) => records.filter((record) => record.file === entry.get('file')).length;
    const short = manifest.get('journals').some((entry) => held(entry) < entry.get('records'));
    if (!short && lost.length === 0) return;
    const key = (record) => `${record.attempt}.${record.rank}.${record.seq}`;
    const present = new Set(records.map(key));
    for (const journal of this.sealed(manifest)) {
      const missing = journal.records.filter((record) => !present.has(key(record)));
      records.push(...missing.map((record) => ({ ...record, file: journal.name })));
    }
    this.unreadable = new Map(); // the journals hold these groups
    records.sort((a, b) => a.attempt - b.attempt || a.rank - b.rank || (a.seq < b.seq ? -1 : 1));
  }
}

function byRankAndOrdinal(a, b) {
  return a.rank - b.rank || a.ordinal - b.ordinal;
}

const KNOWN = new Set(['format', 'id', 'name', 'tags', 'status', 'start', 'end', 'duration_seconds', 'exception',
  'environment', 'writer', 'generation', 'attempts', 'lineage', ...SEALED, 'extensions']);
const known = (name) => KNOWN.has(name);

/** Status, start, end and exception: the word of the journals, and of the manifest where they are silent. */
function history(journals, records, manifest) {
  const rank = Math.min(...journals.map((journal) => journal.rank));
  const own = journals.filter((journal) => journal.rank === rank);
  const last = Math.max(...own.map((journal) => journal.attempt));
  const start = startOf(own) ?? manifest?.get('start') ?? own.map(opened).find((time) => time !== null) ?? null;
  const end = records.findLast((record) => record.kind === 'end' && record.rank === rank && record.attempt === last);
  if (end) {
    const exception = end.body.get('exception') ?? null;
    return { status: end.body.get('status'), start, end: timestamp(end.time), exception };
  }
  const status = manifest?.get('status') ?? 'running';
  const lists = manifest?.get('attempts')?.some((attempt) => Number(attempt.get('attempt')) === last);
  if (status !== 'running' && (lists || own.length === 0)) {
    return { status, start, end: manifest.get('end') ?? null, exception: manifest.get('exception') ?? null };
  }
  // No process table is asked and nothing is waited for, so step 7 of spec/1.0/liveness.md decides.
  return { status: 'running', start, end: null, exception: null };
}

/** When the first journal of the first attempt was opened, if its header says so. */
function startOf(journals) {
  const least = Math.min(...journals.map((journal) => journal.attempt));
  const first = journals.find((journal) => journal.attempt === least);
  return first ? opened(first) : null;
}

function opened({ header, time }) {
  const moment = header?.get('time') ?? time;
  return moment === undefined ? null : timestamp(Number(moment));
}

/** Unix time as ISO 8601 in UTC with microseconds. */
function timestamp(seconds) {
  const micros = Math.round(seconds * 1e6);
  const whole = Math.floor(micros / 1e6);
  const text = new Date(whole * 1000).toISOString().slice(0, 19);
  return `${text}.${String(micros - whole * 1e6).padStart(6, '0')}+00:00`;
}
