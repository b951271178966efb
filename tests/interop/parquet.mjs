// A reader of Parquet for flat tables of bool, int32, int64 and double columns, and nothing else.
// Every size and count is compared with what is there, and with a limit, before memory is taken for it.

import zlib from 'node:zlib';
import { Cursor, readStruct } from './thrift.mjs';

const MAX_DECODED = 2 * 2 ** 30;
const MAX_GROUP_ROWS = 1_048_576;
const TYPES = { 0: 'bool', 1: 'int32', 2: 'int64', 5: 'double' };
const WIDTHS = { int32: 4, int64: 8, double: 8 };
const [DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2] = [0, 2, 3];
const CODECS = {
  0: (bytes) => bytes,
  2: zlib.gunzipSync,
  4: zlib.brotliDecompressSync,
  6: zlib.zstdDecompressSync,
};

/** `{metadata: Map, rows: n, columns: [{name, type, values}]}`; an absent value is null. */
export function readTable(file) {
  const footer = readFooter(file);
  const [root, ...leaves] = footer[2];
  if (root[5] !== leaves.length || new Set(leaves.map((leaf) => String(leaf[4]))).size !== leaves.length) {
    throw new Error('not a flat table');
  }
  const columns = leaves.map(toColumn);
  const groups = footer[4];
  for (const group of groups) checkGroup(group, columns.length);
  const rows = groups.reduce((sum, group) => sum + group[3], 0);
  if (rows !== footer[3]) throw new Error('row groups do not add up to the rows of the table');
  if (rows * columns.length * 8 > MAX_DECODED) throw new Error(`${rows} rows would take more than 2 GiB`);
  for (const group of groups) columns.forEach((column, index) => readChunk(file, column, group[1][index], group[3]));
  const metadata = new Map((footer[5] ?? []).map((pair) => [String(pair[1]), pair[2] ?? null]));
  return { metadata, rows, columns };
}

function readFooter(file) {
  const end = file.read(file.size - 8, 8);
  if (String(file.read(0, 4)) !== 'PAR1' || String(end.subarray(4)) !== 'PAR1') throw new Error('no Parquet file');
  const length = end.readUInt32LE();
  if (length > file.size - 12) throw new Error('footer larger than the file');
  return readStruct(new Cursor(file.read(file.size - 8 - length, length)));
}

function toColumn(element) {
  const type = TYPES[element[1]];
  if (!type || element[5] || !(element[3] === 0 || element[3] === 1)) throw new Error('not a flat table of numbers');
  return { name: String(element[4]), type, optional: element[3] === 1, values: [] };
}

function checkGroup(group, columns) {
  if (!(group[3] >= 0 && group[3] <= MAX_GROUP_ROWS)) throw new Error('row group of more than 1,048,576 rows');
  if (group[1].length !== columns) throw new Error('row group without all columns');
}

function readChunk(file, column, chunk, rows) {
  if (rows === 0) return;
  const meta = chunk[3];
  if (chunk[1] !== undefined || !meta) throw new Error('column stored elsewhere or encrypted');
  if (TYPES[meta[1]] !== column.type || meta[5] !== rows) throw new Error('column chunk differs from the schema');
  const start = Math.min(meta[9], meta[11] || meta[9]);
  if (!(start >= 4 && meta[7] >= 0 && start + meta[7] <= file.size)) throw new Error('column chunk beyond the file');
  const cursor = new Cursor(file.read(start, meta[7]));
  const wanted = column.values.length + rows;
  let dictionary = null;
  while (column.values.length < wanted) {
    const page = readPage(cursor, wanted - column.values.length);
    const body = { ...page, codec: meta[4], column, dictionary };
    if (page.type === DICTIONARY_PAGE) dictionary = readDictionary(body);
    else if (page.type === DATA_PAGE) readData(body);
    else readDataV2(body);
  }
}

// A page header and the bytes of its page, once their checksum is found right.
function readPage(cursor, most) {
  const head = readStruct(cursor);
  const [type, size] = [head[1], head[2]];
  const detail = { [DATA_PAGE]: head[5], [DICTIONARY_PAGE]: head[7], [DATA_PAGE_V2]: head[8] }[type];
  if (!detail) throw new Error(`page of type ${type}`);
  const count = detail[1];
  if (!(count >= 0 && count <= MAX_GROUP_ROWS) || (type !== DICTIONARY_PAGE && !(count > 0 && count <= most))) {
    throw new Error('page of more values than rows');
  }
  if (!(size >= 0 && size <= 16 * count + 65_536)) throw new Error('page declares more bytes than its values need');
  const bytes = cursor.take(head[3]);
  if (head[4] !== undefined && zlib.crc32(bytes) !== head[4] >>> 0) throw new Error('page checksum differs');
  return { type, size, count, detail, bytes };
}

function unpack({ codec, size }, bytes, expected = size) {
  if (!CODECS[codec]) throw new Error(`compression ${codec}, which this reader does not know`);
  if (bytes.length === 0 && expected === 0) return bytes;
  const decoded = CODECS[codec](bytes, { maxOutputLength: Math.max(expected, 1) });
  if (decoded.length !== expected) throw new Error('page decodes to another size than it declares');
  return decoded;
}

function readDictionary(page) {
  return plain(new Cursor(unpack(page, page.bytes)), page.column.type, page.count);
}

function readData(page) {
  const cursor = new Cursor(unpack(page, page.bytes));
  let present = null;
  if (page.column.optional) {
    if (page.detail[3] !== 3) throw new Error('levels that are not RLE');
    present = hybrid(new Cursor(cursor.take(cursor.take(4).readUInt32LE())), 1, page.count);
  }
  append(page, cursor, present, page.detail[2]);
}

function readDataV2(page) {
  const { bytes, detail, column, count, size } = page;
  const cursor = new Cursor(bytes);
  if (detail[6] !== 0) throw new Error('repeated values');
  const levels = cursor.take(detail[5]);
  const present = column.optional ? hybrid(new Cursor(levels), 1, count) : null;
  const body = cursor.take(cursor.left);
  const values = detail[7] === false ? body : unpack(page, body, size - levels.length);
  append(page, new Cursor(values), present, detail[4]);
}

function append({ column, count, dictionary }, cursor, present, encoding) {
  const held = present ? present.reduce((sum, level) => sum + level, 0) : count;
  const values = decode(cursor, encoding, column.type, held, dictionary);
  let next = 0;
  for (let row = 0; row < count; row += 1) column.values.push(!present || present[row] ? values[next++] : null);
}

function decode(cursor, encoding, type, count, dictionary) {
  if (count === 0) return [];
  if (encoding === 0) return plain(cursor, type, count);
  if (encoding === 3 && type === 'bool') {
    return hybrid(new Cursor(cursor.take(cursor.take(4).readUInt32LE())), 1, count).map((bit) => bit === 1);
  }
  if (encoding === 2 || encoding === 8) return fromDictionary(hybrid(cursor, cursor.byte(), count), dictionary);
  if (encoding === 5 && type.startsWith('int')) return deltas(cursor, type, count);
  if (encoding === 9 && type !== 'bool') return plain(joinStreams(cursor, WIDTHS[type], count), type, count);
  throw new Error(`encoding ${encoding} of ${type}, which this reader does not know`);
}

function plain(cursor, type, count) {
  if (type === 'bool') {
    const bytes = cursor.take(Math.ceil(count / 8));
    return Array.from({ length: count }, (_, index) => ((bytes[index >> 3] >> (index & 7)) & 1) === 1);
  }
  const bytes = cursor.take(count * WIDTHS[type]);
  const read = { int32: 'readInt32LE', int64: 'readBigInt64LE', double: 'readDoubleLE' }[type];
  return Array.from({ length: count }, (_, index) => bytes[read](index * WIDTHS[type]));
}

// BYTE_STREAM_SPLIT: the first bytes of all values, then their second bytes, and so on.
function joinStreams(cursor, width, count) {
  const streams = cursor.take(width * count);
  const bytes = Buffer.alloc(streams.length);
  for (let index = 0; index < bytes.length; index += 1) {
    bytes[index] = streams[(index % width) * count + Math.floor(index / width)];
  }
  return new Cursor(bytes);
}

function fromDictionary(indices, dictionary) {
  return indices.map((index) => {
    if (!(index < dictionary?.length)) throw new Error('index beyond the dictionary');
    return dictionary[index];
  });
}

// RLE and bit-packed runs of small unsigned numbers.
function hybrid(cursor, width, count) {
  if (width > 32) throw new Error('numbers wider than 32 bits');
  const values = [];
  while (values.length < count) {
    const head = cursor.size();
    const run = Math.min(head % 2 ? (head - 1) * 4 : head / 2, count - values.length);
    if (run === 0) throw new Error('run without values');
    if (head % 2) {
      const bytes = cursor.take(Math.min(((head - 1) / 2) * width, cursor.left));
      if (bytes.length * 8 < run * width) throw new Error('bit-packed run beyond its page');
      for (let index = 0; index < run; index += 1) values.push(Number(bits(bytes, index * width, width)));
    } else {
      const value = bits(cursor.take(Math.ceil(width / 8)), 0, width);
      for (let index = 0; index < run; index += 1) values.push(Number(value));
    }
  }
  return values;
}

// `width` bits from a position on, the least significant first.
function bits(bytes, position, width) {
  let [value, shift] = [0n, 0n];
  const [first, last] = [position >> 3, (position + width + 7) >> 3];
  if (width <= 25 && last - first <= 4) {
    let small = 0;
    for (let at = last - 1; at >= first; at -= 1) small = small * 256 + bytes[at];
    return Math.floor(small / 2 ** (position & 7)) % 2 ** width;
  }
  for (let at = first; at < last; at += 1, shift += 8n) value |= BigInt(bytes[at]) << shift;
  return BigInt.asUintN(width, value >> BigInt(position & 7));
}

// DELTA_BINARY_PACKED: blocks of differences, each block less its least one, in miniblocks of one bit width.
function deltas(cursor, type, count) {
  const [blockSize, miniblocks, total] = [cursor.size(), cursor.size(), cursor.size()];
  const perMiniblock = blockSize / miniblocks;
  if (total !== count || !(perMiniblock > 0 && perMiniblock % 32 === 0)) throw new Error('delta header is wrong');
  const wrap = type === 'int32' ? (value) => BigInt.asIntN(32, value) : (value) => BigInt.asIntN(64, value);
  const values = [wrap(cursor.zigzag())];
  while (values.length < count) {
    const least = cursor.zigzag();
    for (const width of Uint8Array.from(cursor.take(miniblocks))) {
      if (values.length === count) break;
      if (width > 64) throw new Error('numbers wider than 64 bits');
      const bytes = cursor.take((perMiniblock / 8) * width);
      const here = Math.min(perMiniblock, count - values.length);
      for (let index = 0; index < here; index += 1) {
        values.push(wrap(values.at(-1) + least + BigInt(bits(bytes, index * width, width))));
      }
    }
  }
  return type === 'int32' ? values.map(Number) : values;
}
