// Metrics, their groups, types and columns (spec/1.0/groups.md).

import { STATISTICS } from './journal.mjs';

const MAX_METRICS = 100_000;
const TYPES = ['bool', 'int64', 'float64'];
const rankOf = (value) => ['boolean', 'bigint', 'number'].indexOf(typeof value);

export function groupOf(metric) {
  const slash = metric.indexOf('/');
  return slash < 0 ? '' : metric.slice(0, slash);
}

/** Groups in first-seen order: `{rows, columns: [{metric, statistic, type, unit, description, values}]}` by name. */
export function toGroups(records, manifestGroups) {
  const metrics = new Map(); // name -> {type, unit, description, statistics: name -> type}
  const dropped = new Set();
  const see = (name) => {
    if (metrics.size >= MAX_METRICS && !metrics.has(name)) return dropped.add(name) && null;
    if (!metrics.has(name)) metrics.set(name, { type: -1, statistics: new Map() });
    return metrics.get(name);
  };
  for (const group of manifestGroups?.values() ?? []) describeByManifest(group, see);
  const rows = records.filter((record) => record.kind === 'metrics');
  for (const { metrics: values, ranks } of rows) {
    for (const [name, value] of values) widen(see(name), value);
    for (const [name, held] of ranks) widenStatistics(see(name), held);
  }
  for (const { kind, body } of records) {
    const metric = kind === 'describe' && metrics.get(body.get('metric'));
    for (const field of ['unit', 'description']) if (metric && body.has(field)) metric[field] = body.get(field);
  }
  const groups = new Map();
  for (const [name, metric] of metrics) {
    const group = groupOf(name);
    if (!groups.has(group)) groups.set(group, new Map());
    groups.get(group).set(name, metric);
  }
  return { dropped: dropped.size, groups: new Map([...groups].map(([name, own]) => [name, toGroup(own, rows)])) };
}

// Of a packed run the manifest alone knows the order, and every metric that a table has.
function describeByManifest(group, see) {
  for (const [name, entry] of group.get('metrics')) {
    const metric = see(name);
    if (!metric) continue;
    for (const field of ['unit', 'description']) if (entry.has(field)) metric[field] = entry.get(field);
  }
}

function widen(metric, value) {
  if (metric) metric.type = Math.max(metric.type, rankOf(value));
}

function widenStatistics(metric, held) {
  for (const [name, value] of metric ? held : []) {
    metric.statistics.set(name, Math.max(metric.statistics.get(name) ?? -1, rankOf(value)));
  }
}

function toGroup(metrics, records) {
  const names = (record) => [...record.metrics.keys(), ...record.ranks.keys()];
  const rows = records.filter((record) => names(record).some((name) => metrics.has(name)));
  const columns = [];
  for (const [metric, { type, unit, description, statistics }] of metrics) {
    columns.push({ metric, unit, description, ...column(type, rows, (row) => row.metrics.get(metric)) });
    for (const statistic of STATISTICS.filter((name) => statistics.has(name))) {
      const values = (row) => row.ranks.get(metric)?.get(statistic);
      columns.push({ metric, statistic, ...column(statistics.get(statistic), rows, values) });
    }
  }
  return { rows, columns };
}

// A metric without a value of its own is float64. An absent value is null.
function column(rank, rows, valueOf) {
  const type = TYPES[rank] ?? 'float64';
  return { type, values: rows.map((row) => convert(valueOf(row), type)) };
}

function convert(value, type) {
  if (value === undefined) return null;
  if (type === 'int64') return BigInt(value);
  return type === 'float64' ? Number(value) : value;
}
