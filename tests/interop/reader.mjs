// A reader of the Blackbox run format, written from spec/1.0 alone. Start here: `readRun(path)`.

import { decodeConfig } from './config.mjs';
import { Refused, RunDirectory } from './files.mjs';
import { toGroups } from './groups.mjs';
import { journalName, readJournal } from './journal.mjs';
import { parseJson } from './json.mjs';
import { decideId, isForeign, markEffective, merge, place } from './merge.mjs';
import { validMember } from './schema.mjs';
import { sealedJournals, sealedRecords } from './sealed.mjs';
import { formatNamed, refusal } from './versions.mjs';

export { Refused } from './files.mjs';

const MAX_DOCUMENT = 16 * 2 ** 20;
const MANIFEST = 'manifest.schema.json';
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
    this.manifest = this.readManifest();
    this.packed = this.manifest?.get('sealed')?.get('packed') === true;
    const read = this.readJournals();
    const id = this.decide(read);
    const own = read.filter((journal) => !isForeign(journal, id));
    const journals = place([...own, ...(this.packed ? this.unpack() : [])].sort(byRankAndOrdinal));
    const { records, lost, conflicts } = merge(journals);
    for (const conflict of conflicts) this.report(conflict.file, `seq ${conflict.seq} differs from its copy`);
    const history = this.manifest?.has('sealed') && !this.packed ? this.heal(records, lost) : records;
    markEffective(history);
    const { groups, dropped } = toGroups(history, this.manifest?.get('groups'), this.packed);
    if (dropped) this.report(null, `${dropped} names beyond the limit of metrics are left out`);
    const first = own.find((journal) => journal.header)?.header.get('run') ?? new Map();
    return {
      id,
      name: this.manifest?.get('name') ?? first.get('name') ?? null,
      tags: this.manifest?.get('tags') ?? (validMember('tags', first.get('tags'), MANIFEST) ? first.get('tags') : []),
      environment: this.manifest?.get('environment') ?? new Map(),
      ...outcome(journals, history, this.manifest),
      config: this.readConfig(),
      groups,
      records: history,
      lost,
      damaged: own.flatMap((journal) => journal.damaged),
      leftOut: this.leftOut,
      unreadable: this.unreadable,
      problems: this.problems,
    };
  }

  report(file, why) {
    this.problems.push({ file, why });
  }

  /** The id of the run. A manifest of another id is dropped, and journals of another id are left out. */
  decide(journals) {
    const told = this.manifest?.get('id');
    const id = this.packed ? told : decideId(journals, told);
    if (id === undefined && this.manifest === null) throw new Refused('no run');
    if (told !== undefined && told !== id) {
      this.report('run.json', 'of another run');
      this.manifest = null;
    }
    for (const journal of journals.filter((other) => isForeign(other, id))) this.leave(journal, 'of another run');
    return id;
  }

  leave(journal, why) {
    this.leftOut.push(journal.name);
    this.report(journal.name, why);
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
      this.report('run.json', error.message);
      return null;
    }
    const format = formatNamed(document, 'blackbox-run');
    const reason = format && refusal(format);
    if (reason) throw new Refused(reason);
    if (!format || !document.has('id')) {
      this.report('run.json', 'no manifest of a run');
      return null;
    }
    return this.usableMembers(document);
  }

  usableMembers(document) {
    const usable = new Map();
    for (const [name, value] of document) {
      if (validMember(name, value, MANIFEST)) usable.set(name, value);
      else this.report('run.json', `${name} is not valid`);
    }
    if (!SEALED.every((name) => usable.has(name))) for (const name of SEALED) usable.delete(name);
    return usable;
  }

  readConfig() {
    try {
      const bytes = this.readDocument('config.json');
      return bytes === null ? new Map() : decodeConfig(bytes);
    } catch (error) {
      this.report('config.json', error.message);
      return null;
    }
  }

  /** The journals that can be read, by rank and ordinal; of a packed run those its manifest does not list. */
  readJournals() {
    const listed = new Set(this.packed ? this.manifest.get('journals').map((entry) => entry.get('file')) : []);
    const { names, more } = this.directory.names();
    if (more) this.report(null, `only the first ${names.length} files are looked at`);
    const named = names.map(journalName).filter((found) => found !== null && !listed.has(found.name));
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
      this.report(named.name, error.message);
      return null;
    } finally {
      file?.close();
    }
  }

  sealed() {
    const { records, unreadable } = sealedRecords(this.directory, this.manifest);
    for (const [group, why] of unreadable) this.report(this.manifest.get('groups').get(group).get('table'), why);
    this.unreadable = unreadable;
    return sealedJournals(this.manifest, records);
  }

  /** The journals of a packed run, made of its tables and events. */
  unpack() {
    return this.sealed().map((journal) => ({ ...journalName(journal.name), ...journal, header: null, lines: 1 }));
  }

  /** The records, and those that a listed journal has lost and the tables and events still hold. */
  heal(records, lost) {
    const held = Map.groupBy(records, (record) => record.file);
    const short = this.manifest.get('journals').some((entry) =>
      (held.get(entry.get('file'))?.length ?? 0) < entry.get('records'));
    if (!short && lost.length === 0) return records;
    const key = (record) => `${record.attempt}.${record.rank}.${record.seq}`;
    const present = new Set(records.map(key));
    const missing = this.sealed().flatMap((journal) => journal.records).filter((record) => !present.has(key(record)));
    this.unreadable = new Map(); // the journals hold these groups
    return [...records, ...missing].sort(byMergeOrder);
  }
}

function byRankAndOrdinal(a, b) {
  return a.rank - b.rank || a.ordinal - b.ordinal;
}

function byMergeOrder(a, b) {
  return a.attempt - b.attempt || a.rank - b.rank || (a.seq < b.seq ? -1 : 1);
}

/** Status, start, end and exception: the word of the journals, and of the manifest where they are silent. */
function outcome(journals, records, manifest) {
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

/** Unix time as ISO 8601 in UTC with microseconds; null for a year that does not have four digits. */
function timestamp(seconds) {
  if (!(seconds >= -62_167_219_200 && seconds < 253_402_300_799)) return null;
  const micros = Math.round(seconds * 1e6);
  const whole = Math.floor(micros / 1e6);
  const text = new Date(whole * 1000).toISOString().slice(0, 19);
  return `${text}.${String(micros - whole * 1e6).padStart(6, '0')}+00:00`;
}
