// The records that the tables and the manifest of a sealed run hold (spec/1.0/sealing.md, "Unpacking").

import { toRecord } from './journal.mjs';
import { parseJson } from './json.mjs';
import { readTable } from './parquet.mjs';
import { valid } from './schema.mjs';
import { formatNamed, refusal } from './versions.mjs';

const MAX_METADATA = 1 << 20;
const LEADING = { step: 'int64', time: 'double', attempt: 'int32', rank: 'int32', seq: 'int64' };
const PHYSICAL = { bool: 'bool', int64: 'int64', float64: 'double' };
const key = (record) => `${record.attempt}.${record.rank}.${record.seq}`;

/** Every record that can be had, and what is wrong with each table that cannot be read: `{records, unreadable}`. */
export function sealedRecords(directory, manifest) {
  const records = new Map();
  const unreadable = new Map();
  for (const [name, group] of manifest.get('groups')) {
    try {
      const rows = readGroup(directory, manifest, name, group);
      for (const row of rows) addRow(records, row);
    } catch (error) {
      unreadable.set(name, error.message);
    }
  }
  for (const journal of manifest.get('journals')) {
    const [attempt, rank] = [Number(journal.get('attempt')), Number(journal.get('rank'))];
    for (const document of journal.get('events') ?? []) {
      const event = { ...toRecord(document, 'defs.schema.json#/$defs/record'), attempt, rank };
      records.set(key(event), event);
    }
  }
  return { records: [...records.values()], unreadable };
}

/** The journals of the manifest, each with those of the records that belong to it. */
export function sealedJournals(manifest, records) {
  const journals = manifest.get('journals').map((entry) => ({
    name: entry.get('file'),
    attempt: Number(entry.get('attempt')),
    rank: Number(entry.get('rank')),
    firstSeq: entry.get('first_seq'),
    time: entry.get('time'),
    records: [],
  }));
  const session = ({ attempt, rank }) => `${attempt}.${rank}`;
  const held = Map.groupBy(records, session);
  for (const [key, own] of Map.groupBy(journals, session)) {
    own.sort((a, b) => order(a.firstSeq, b.firstSeq));
    let next = 0;
    for (const record of (held.get(key) ?? []).sort((a, b) => order(a.seq, b.seq))) {
      while (next < own.length && own[next].firstSeq <= record.seq) next += 1;
      own[next - 1]?.records.push(record);
    }
  }
  return journals;
}

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function readGroup(directory, manifest, name, group) {
  const file = directory.open(group.get('table'));
  if (file === null) throw new Error('table is missing');
  try {
    const table = readTable(file);
    checkMetadata(table.metadata.get('blackbox'), manifest, name);
    return [...rowsOf(table, group)];
  } finally {
    file.close();
  }
}

function checkMetadata(bytes, manifest, name) {
  if (!bytes || bytes.length > MAX_METADATA) throw new Error('no metadata of a table');
  const document = parseJson(bytes);
  const format = formatNamed(document, 'blackbox-table');
  const reason = format && refusal(format);
  if (reason) throw new Error(reason);
  if (!valid(document, 'table-metadata.schema.json')) throw new Error('metadata not valid by its schema');
  if (document.get('run').get('id') !== manifest.get('id')) throw new Error('table of another run');
  if (document.get('group') !== name) throw new Error('table of another group');
}

function* rowsOf(table, group) {
  const index = new Map(table.columns.map((column, position) => [column.name, position]));
  const column = (position, type) => {
    const found = table.columns[position];
    if (found?.type !== type) throw new Error(`column ${found?.name ?? 'missing'} is not ${type}`);
    return found.values;
  };
  const leading = Object.entries(LEADING).map(([name, type]) => [name, column(index.get(name), type)]);
  if (leading.some(([, values]) => values.includes(null))) throw new Error('null in a leading column');
  const cells = [...group.get('metrics')].map(([metric, entry]) => {
    const at = index.get(entry.get('column'));
    const own = column(at, PHYSICAL[entry.get('type')]);
    const statistics = (entry.get('statistics') ?? []).map((name, k) => {
      const following = table.columns[at + 1 + k];
      if (!following) throw new Error(`no column for ${name} of ${metric}`);
      return [name, following.values];
    });
    return { metric, own, statistics };
  });
  for (let row = 0; row < table.rows; row += 1) {
    const record = { kind: 'metrics', raw: null, metrics: new Map(), ranks: new Map() };
    for (const [name, values] of leading) record[name] = values[row];
    for (const { metric, own, statistics } of cells) {
      if (own[row] !== null) record.metrics.set(metric, own[row]);
      const held = statistics.filter(([, values]) => values[row] !== null);
      if (held.length) record.ranks.set(metric, new Map(held.map(([name, values]) => [name, values[row]])));
    }
    yield record;
  }
}

function addRow(records, row) {
  const known = records.get(key(row));
  if (!known) {
    records.set(key(row), row);
    return;
  }
  for (const [metric, value] of row.metrics) known.metrics.set(metric, value);
  for (const [metric, statistics] of row.ranks) known.ranks.set(metric, statistics);
}
