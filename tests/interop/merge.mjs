// From many journals to one history (spec/1.0/merge.md).

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const runOf = (journal) => journal.header.get('run').get('id');

/** The id of the run. `journals` are in the order of rank, then ordinal. */
export function decideId(journals, manifestId) {
  const carried = journals.filter((journal) => journal.header).map(runOf);
  return manifestId && (carried.includes(manifestId) || carried.length === 0) ? manifestId : carried[0];
}

export function isForeign(journal, id) {
  return journal.header !== null && runOf(journal) !== id;
}

/** Give each journal its attempt; those without a committed line have none. `journals` as above. */
export function place(journals) {
  let before = null; // the nearest journal of the same rank with a lower ordinal and a place
  for (const journal of journals) {
    if (before?.rank !== journal.rank) before = null;
    if (journal.lines === 0) continue;
    if (journal.attempt !== undefined) {
      // placed by the manifest of a packed run
    } else if (journal.header) {
      journal.attempt = Number(journal.header.get('attempt'));
      journal.firstSeq = journal.header.get('first_seq');
    } else {
      Object.assign(journal, placeWithoutHeader(journal, before));
    }
    before = journal;
  }
  return journals.filter((journal) => journal.attempt !== undefined);
}

function placeWithoutHeader(journal, before) {
  if (!before) return { attempt: 0, firstSeq: 0n };
  const next = { attempt: before.attempt + 1, firstSeq: 0n };
  if (before.records.some((record) => record.kind === 'end')) return next;
  const earlier = new Map(before.records.map((record) => [record.seq, record]));
  const copies = journal.records.filter((record) => earlier.has(record.seq));
  if (!copies.every((record) => sameLine(record, earlier.get(record.seq)))) return next;
  const first = journal.records[0]?.seq;
  const continues = first !== undefined && (first > 0n || earlier.has(first));
  return continues ? { attempt: before.attempt, firstSeq: first } : next;
}

// A record of a packed journal has no line left to compare.
function sameLine(a, b) {
  return a.raw === null || b.raw === null || a.raw.equals(b.raw);
}

/** Records by attempt, rank, seq; ranges of seq that nothing holds; copies that differ. */
export function merge(journals) {
  const sessions = new Map();
  for (const journal of journals) {
    const { attempt, rank } = journal;
    const key = `${attempt}.${rank}`;
    if (!sessions.has(key)) sessions.set(key, { attempt, rank, journals: [] });
    sessions.get(key).journals.push(journal);
  }
  const merged = { records: [], lost: [], conflicts: [] };
  const inOrder = [...sessions.values()].sort((a, b) => a.attempt - b.attempt || a.rank - b.rank);
  for (const session of inOrder) mergeSession(session, merged);
  return merged;
}

function mergeSession({ attempt, rank, journals }, merged) {
  const bySeq = new Map();
  let end = 0n; // one more than the greatest seq known
  for (const journal of journals.sort((a, b) => a.ordinal - b.ordinal)) {
    if (journal.firstSeq > end) end = journal.firstSeq;
    for (const record of journal.records) {
      const earlier = bySeq.get(record.seq);
      if (earlier && !sameLine(earlier, record)) merged.conflicts.push({ file: journal.name, seq: record.seq });
      bySeq.set(record.seq, { ...record, attempt, rank, file: journal.name });
      if (record.seq >= end) end = record.seq + 1n;
    }
  }
  const records = [...bySeq.values()].sort((a, b) => order(a.seq, b.seq));
  for (const record of records) merged.records.push(record);
  for (const [first, last] of holes(records, end)) merged.lost.push({ attempt, rank, first, last });
}

function holes(records, end) {
  const ranges = [];
  let next = 0n;
  for (const seq of [...records.map((record) => record.seq), end]) {
    if (seq > next) ranges.push([next, seq - 1n]);
    next = seq + 1n;
  }
  return ranges;
}

/** Mark each metrics record as effective or superseded by a later rewind of its rank. */
export function markEffective(records) {
  const cut = new Map();
  for (const record of records.toReversed()) {
    const limit = cut.get(record.rank);
    if (record.kind === 'rewind') {
      const step = record.body.get('step');
      if (limit === undefined || step < limit) cut.set(record.rank, step);
    } else if (record.kind === 'metrics') {
      record.effective = limit === undefined || record.step < limit;
    }
  }
}
