// Speaks the protocol of fixtures/README.md: a request a line on standard input, an answer a line on standard output.

import readline from 'node:readline';
import { INT64_MAX, INT64_MIN } from './json.mjs';
import { readRun, Refused } from './reader.mjs';
import { Tagged } from './config.mjs';

const HELLO = { name: 'blackbox-javascript', version: '1.0', claims: ['read', 'tables'] };

/** A number of any type as the corpus writes it; null, bool and text as they are. */
function toWire(value) {
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return Object.is(value, -0) ? '-0.0' : String(value);
  return value ?? null;
}

function configToWire(node) {
  if (typeof node === 'number') return { float64: toWire(node) };
  if (typeof node === 'bigint') return { [node >= INT64_MIN && node <= INT64_MAX ? 'int64' : 'int']: String(node) };
  if (Array.isArray(node)) return node.map(configToWire);
  if (node instanceof Map) return { mapping: [...node].map(([key, value]) => [key, configToWire(value)]) };
  return node instanceof Tagged ? tagToWire(node) : node;
}

function tagToWire({ tag, value }) {
  if (tag === '$tuple') return { tuple: configToWire(value) };
  if (tag === '$dict') return { mapping: configToWire(value) };
  if (tag === '$repr') return value.get('text');
  if (tag === '$path' || tag === '$bytes') return { [tag.slice(1)]: value };
  return { unknown: [tag, configToWire(value)] };
}

/** JSON as it stands, for what nobody looks into. */
function plain(value) {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, member]) => [key, plain(member)]));
  return Array.isArray(value) ? value.map(plain) : typeof value === 'bigint' ? Number(value) : value;
}

const LEADING = ['step', 'time', 'attempt', 'rank', 'seq'];

function groupToWire(group, { rows, columns }) {
  const leading = LEADING.map((name) => [name, rows.map((row) => toWire(row[name]))]);
  const wire = columns.map((column) => ({ ...column, values: column.values().map(toWire) }));
  return { group, ...Object.fromEntries(leading), effective: rows.map((row) => row.effective), columns: wire };
}

function runToWire(run) {
  const { id, name, tags, status, start, end, exception, damaged } = run;
  const lost = run.lost.map((range) => ({ ...range, first: toWire(range.first), last: toWire(range.last) }));
  const groups = [...run.groups].map(([group, content]) =>
    (run.unreadable.has(group) ? { group, unreadable: true } : groupToWire(group, content)));
  return {
    id, name, tags, status, start, end, lost,
    exception: exception && plain(exception),
    config: configToWire(run.config),
    groups,
    damaged: damaged.map(({ file, line, offset }) => ({ file, line, offset })),
    left_out: run.leftOut,
  };
}

function answer({ operation, run }) {
  if (operation === 'hello') return HELLO;
  if (operation !== 'read') return { error: `unknown operation ${operation}` };
  try {
    return { read: runToWire(readRun(run)) };
  } catch (error) {
    return error instanceof Refused ? { read: { refused: true } } : { error: String(error.stack) };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  process.stdout.write(`${JSON.stringify({ id: request.id, ...answer(request) })}\n`);
}
