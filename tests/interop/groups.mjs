// Metrics, their groups, types and columns (spec/1.0/groups.md).

import { STATISTICS } from './journal.mjs';

const MAX_METRICS = 100_000;
const TYPES = ['bool', 'int64', 'float64'];
const rankOf = (value) => ['boolean', 'bigint', 'number'].indexOf(typeof value);

export function groupOf(metric) {
  const slash = metric.indexOf('/');
  return slash < 0 ? '' : metric.slice(0, slash);
}

/**
 * Groups in first-seen order: `{rows, columns: [{metric, statistic, type, unit, description, values()}]}` by name.
 * `listed` are the groups of the manifest; of a packed run they alone know the order (`inOrder`).
 */
export function toGroups(records, listed, inOrder) {
  const metrics = new Map(); // name -> {type, unit, description, statistics: name -> type}
  const dropped = new Set();
  const see = (name) => {
    if (metrics.size >= MAX_METRICS && !metrics.has(name)) return dropped.add(name) && null;
    if (!metrics.has(name)) metrics.set(name, { type: -1, statistics: new Map() });
    return metrics.get(name);
  };
  const entries = [...(listed?.values() ?? [])].flatMap((group) => [...group.get('metrics')]);
  if (inOrder) for (const [name] of entries) see(name);
  const rows = records.filter((record) => record.kind === 'metrics');
  for (const { metrics: values, ranks } of rows) {
    for (const [name, value] of values) widen(see(name), value);
    for (const [name, held] of ranks) widenStatistics(see(name), held);
  }
  const describe = (metric, fields) => {
    for (const field of ['unit', 'description']) if (metric && fields.has(field)) metric[field] = fields.get(field);
  };
  for (const [name, entry] of entries) describe(metrics.get(name), entry);
  for (const { kind, body } of records) if (kind === 'describe') describe(metrics.get(body.get('metric')), body);
  return { dropped: dropped.size, groups: byGroup(metrics, rows) };
}

function byGroup(metrics, rows) {
  const groups = new Map();
  const own = (name) => {
    const group = groupOf(name);
    if (!groups.has(group)) groups.set(group, { metrics: new Map(), rows: [] });
    return groups.get(group);
  };
  for (const [name, metric] of metrics) own(name).metrics.set(name, metric);
  for (const row of rows) {
    const named = [...row.metrics.keys(), ...row.ranks.keys()].filter((name) => metrics.has(name));
    for (const group of new Set(named.map(own))) group.rows.push(row);
  }
  return new Map([...groups].map(([name, group]) => [name, toGroup(group)]));
}

function widen(metric, value) {
  if (metric) metric.type = Math.max(metric.type, rankOf(value));
}

function widenStatistics(metric, held) {
  for (const [name, value] of metric ? held : []) {
    metric.statistics.set(name, Math.max(metric.statistics.get(name) ?? -1, rankOf(value)));
  }
}

function toGroup({ metrics, rows }) {
  const columns = [];
  for (const [metric, { type, unit, description, statistics }] of metrics) {
    columns.push({ metric, unit, description, ...column(type, rows, (row) => row.metrics.get(metric)) });
    for (const statistic of STATISTICS.filter((name) => statistics.has(name))) {
      const valueOf = (row) => row.ranks.get(metric)?.get(statistic);
      columns.push({ metric, statistic, ...column(statistics.get(statistic), rows, valueOf) });
    }
  }
  return { rows, columns };
}

// A metric without a value of its own is float64. The values, null where absent, are made when they are asked for:
// a small journal can ask for a huge table.
function column(rank, rows, valueOf) {
  const type = TYPES[rank] ?? 'float64';
  return { type, values: () => rows.map((row) => convert(valueOf(row), type)) };
}

function convert(value, type) {
  if (value === undefined) return null;
  if (type === 'int64') return BigInt(value);
  return type === 'float64' ? Number(value) : value;
}
