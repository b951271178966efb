// One journal: lines, checksums, damage, torn tails (spec/1.0/journal.md).

import zlib from 'node:zlib';
import { INT64_MAX, INT64_MIN, JsonError, parseJson } from './json.mjs';
import { valid } from './schema.mjs';
import { formatNamed, refusal } from './versions.mjs';

const CHUNK = 1 << 20;
const MAX_LINE = 1 << 20; // LF counted
const SUFFIX = /^,"crc":"([0-9a-f]{8})"\}$/;
const NAME = /^metrics(?:\.r([1-9][0-9]*))?(?:\.([1-9][0-9]*))?\.jsonl$/;
const MAX_INDEX = 2 ** 31 - 1;
const KINDS = ['metrics', 'rewind', 'gap', 'describe', 'end'];
const NO_KIND = new Set(['seq', 'step', 'time', 'ranks', 'crc']);

export class Damage extends Error {}

/** Rank and ordinal in the name of a journal, or null if it is the name of something else. */
export function journalName(name) {
  const found = NAME.exec(name);
  if (!found) return null;
  const [rank, ordinal] = [Number(found[1] ?? 0), Number(found[2] ?? 0)];
  return rank <= MAX_INDEX && ordinal <= MAX_INDEX ? { name, rank, ordinal } : null;
}

export function readJournal(file, named) {
  const journal = {
    ...named, header: null, refused: null, lines: 0, records: [], damaged: [], outOfPlace: [], tail: 0,
  };
  let least = 0n;
  for (const { bytes, offset, committed } of lines(file)) {
    if (!committed) {
      journal.tail = file.size - offset;
      break;
    }
    journal.lines += 1;
    const place = { file: named.name, line: journal.lines, offset };
    try {
      const document = parseLine(bytes);
      if (journal.lines === 1) {
        journal.refused = reasonToRefuse(document);
        if (journal.refused) break;
        if (isHeader(document)) {
          journal.header = document;
          least = document.get('first_seq');
          continue;
        }
        throw new Damage('no header');
      }
      const record = toRecord(document, 'journal-record.schema.json', bytes);
      if (record.seq < least) {
        journal.outOfPlace.push({ ...place, seq: record.seq });
        continue;
      }
      least = record.seq + 1n;
      journal.records.push(record);
    } catch (error) {
      if (!(error instanceof Damage || error instanceof JsonError)) throw error;
      journal.damaged.push({ ...place, why: error.message });
    }
  }
  return journal;
}

// Cut at each LF. A line beyond the limit comes without its bytes, and so costs no memory.
function* lines(file) {
  let [parts, length, start] = [[], 0, 0];
  for (let offset = 0; offset < file.size; ) {
    const chunk = file.read(offset, CHUNK);
    if (chunk.length === 0) break;
    let from = 0;
    for (let end; (end = chunk.indexOf(0x0a, from)) >= 0; from = end + 1) {
      const fits = length + end - from < MAX_LINE;
      const last = chunk.subarray(from, end);
      const bytes = parts.length ? Buffer.concat([...parts, last]) : last;
      yield { bytes: fits ? bytes : null, offset: start, committed: true };
      [parts, length, start] = [[], 0, offset + end + 1];
    }
    length += chunk.length - from;
    if (length < MAX_LINE) parts.push(chunk.subarray(from));
    else parts = [];
    offset += chunk.length;
  }
  if (length > 0) yield { bytes: null, offset: start, committed: false };
}

function parseLine(bytes) {
  if (bytes === null) throw new Damage('longer than 1 MiB');
  const crc = SUFFIX.exec(bytes.subarray(-18).toString('latin1'))?.[1];
  if (!crc) throw new Damage('no crc at its end');
  if (zlib.crc32(bytes.subarray(0, -18)) !== parseInt(crc, 16)) throw new Damage('crc differs');
  const document = parseJson(bytes);
  if (document instanceof Map) return document;
  throw new Damage('no JSON object');
}

// With these a journal can be merged; whatever else is wrong with a header costs no record.
function isHeader(document) {
  const definition = { run: 'run', rank: 'index', attempt: 'index', first_seq: 'count', time: 'time' };
  return formatNamed(document, 'blackbox-journal') !== null && Number.isFinite(Number(document.get('time')))
    && Object.entries(definition).every(([key, name]) => valid(document.get(key), `defs.schema.json#/$defs/${name}`));
}

function reasonToRefuse(document) {
  const format = formatNamed(document, 'blackbox-journal');
  return format && refusal(format);
}

/** Make a record of a document, or throw what is wrong with it (BB-JNL-007, 008, 012, 013, BB-GRP-001 to 003). */
export function toRecord(document, schema, raw = null) {
  if (!valid(document, schema)) throw new Damage(`not valid by ${schema}`);
  const others = [...document.keys()].filter((key) => !NO_KIND.has(key));
  const known = others.filter((key) => KINDS.includes(key)); // beside one of these, others are unknown members
  const kind = known[0] ?? others[0];
  if (kind === undefined || known.length > 1) throw new Damage('not exactly one kind');
  const [time, body] = [Number(document.get('time')), document.get(kind)];
  if (!Number.isFinite(time)) throw new Damage('time is not finite');
  const record = { seq: document.get('seq'), step: document.get('step'), time, kind, body, raw };
  if (record.kind === 'describe') checkName(body.get('metric'));
  if (record.kind !== 'metrics') return record;
  record.metrics = mapped(body, toValue);
  record.ranks = mapped(document.get('ranks') ?? new Map(), (statistics) =>
    new Map(STATISTICS.filter((name) => statistics.has(name)).map((name) => [name, toValue(statistics.get(name))])));
  return record;
}

export const STATISTICS = ['mean', 'min', 'max', 'std', 'count'];

function mapped(members, convert) {
  return new Map([...members].map(([name, value]) => [checkName(name), convert(value)]));
}

// The schema has seen to the characters; it cannot count bytes.
function checkName(name) {
  if (Buffer.byteLength(name) > 1024) throw new Damage('name longer than 1,024 bytes');
  return name;
}

/** A bool, a BigInt for an int64 or a Number for a float64. */
function toValue(value) {
  if (typeof value === 'string') return Number(value); // "NaN", "Infinity", "-Infinity": the schema allows no other
  if (typeof value === 'bigint' && (value < INT64_MIN || value > INT64_MAX)) throw new Damage('beyond int64');
  if (value === Infinity || value === -Infinity) throw new Damage('beyond float64');
  return value;
}
